"""promtool shows every alert quiet, firing and cleared, as alert_cases.yaml says."""

import pathlib
import subprocess
import sys
import tempfile

import yaml

from lab import RULES, need

CASES = pathlib.Path(__file__).with_name("alert_cases.yaml")


def rules_by_name():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool_test(case, rule):
    """The case in promtool's form. It compares annotations too, so they are those of the rule."""
    fired = {
        "exp_labels": {**rule["labels"], **case["labels"]},
        "exp_annotations": {**rule["annotations"], "summary": case["summary"]},
    }
    expected = {"quiet_at": [], "fires_at": [fired], "clears_at": []}
    return {
        "name": case["alert"],
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in case["series"].items()],
        "alert_rule_test": [
            {"eval_time": case[when], "alertname": case["alert"], "exp_alerts": alerts}
            for when, alerts in expected.items()],
    }


def main():
    promtool, = need("promtool")
    rules = rules_by_name()
    cases = yaml.safe_load(CASES.read_text())
    untested = rules.keys() - {case["alert"] for case in cases}
    if untested:
        sys.exit(f"no case shows these alerts fire: {sorted(untested)}; add them to {CASES.name}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tests.yaml"
        path.write_text(yaml.safe_dump({
            "rule_files": [str(RULES)],
            "evaluation_interval": "1m",
            "tests": [promtool_test(case, rules[case["alert"]]) for case in cases],
        }))
        result = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True,
                                check=False)
    print(result.stdout + result.stderr)
    print(f"{len(cases)} cases of {len(rules)} alerts")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
