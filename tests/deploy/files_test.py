"""What can be checked of the files for installation with nothing but Python."""

import json
import pathlib
import re
import subprocess
import sys
import unittest

import jsonschema
import yaml

from declared import declared_metrics, mistakes
from lab import CHART, DASHBOARDS, RULES, SOURCE, version

GENERATORS = ("deploy/dashboards/make_dashboards.py", "deploy/helm_values_doc.py")
PROGRAMS = {"coordinator": "server/main.cc", "agent": "worker/agent/main.cc"}

# Keys of maps that templates never look into.
PASSED_ON_WHOLE = ("grafana_dashboard", "grafana_folder", "requests", "limits", "cpu", "memory")


def text_of(path):
    return (SOURCE / path).read_text()


def dashboard_queries():
    """Yields (dashboard and panel, expression)."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


def rules():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


class Metrics(unittest.TestCase):
    def setUp(self):
        self.metrics = declared_metrics()
        # Recorded by a rule, with the labels that its sum keeps.
        self.recorded = {rule["record"] for rule in rules() if "record" in rule}

    def test_the_sources_are_understood(self):
        self.assertIn("autosp_job_loss", self.metrics)
        self.assertEqual({"job_id", "rank", "le"},
                         self.metrics["autosp_rank_step_duration_seconds_bucket"])
        self.assertEqual(set(), self.metrics["autosp_agent_lease_losses_total"])
        for header in ("server/metrics.h", "worker/agent/metrics.h"):
            text = text_of(header)
            for name in re.findall(r'"(autosp_\w+)"', text):
                self.assertTrue(any(known.startswith(name) for known in self.metrics), name)

    def test_mistakes_are_found(self):
        for expr, what in (
                ("autosp_job_lost", "no source declares autosp_job_lost"),
                ("rate(autosp_job_step_duration_seconds[5m])", "no source declares"),
                ('autosp_job_loss{rank="0"}', "no label rank"),
                ("sum by (rank) (autosp_job_loss)", "label rank"),
                ("autosp_jobs / on (job_id) autosp_nodes", "label job_id")):
            with self.subTest(expr):
                found = list(mistakes(expr, self.metrics))
                self.assertTrue(any(what in mistake for mistake in found), found)
        for expr in ('sum by (job) (up{job=~"autosp-.*"})', "time()",
                     'autosp_job_loss{job_id="a"} > on (job_id) autosp_job_running'):
            with self.subTest(expr):
                self.assertEqual([], list(mistakes(expr, self.metrics)))

    def test_dashboards_show_what_is_declared(self):
        queries = list(dashboard_queries())
        self.assertGreater(len(queries), 40)
        for where, expr in queries:
            with self.subTest(where):
                self.assertEqual([], list(mistakes(expr, self.metrics)))

    def test_every_metric_of_a_job_is_shown(self):
        shown = " ".join(expr for _, expr in dashboard_queries())
        for name in self.metrics:
            if name.startswith("autosp_job_") and not name.endswith(("_bucket", "_sum", "_count")):
                # One of the job's sums over ranks is shown by rank instead.
                by_rank = name.replace("autosp_job_", "autosp_rank_")
                is_inner = name in ("autosp_job_steps_total", "autosp_job_memory_bytes")
                self.assertTrue(name in shown or by_rank in shown or is_inner, name)

    def test_rules_watch_what_is_declared(self):
        for rule in rules():
            name = rule.get("alert") or rule["record"]
            with self.subTest(name):
                self.assertEqual([], list(mistakes(rule["expr"], self.metrics)))
                for used in re.findall(r"\bautosp:[\w:]+", rule["expr"]):
                    self.assertIn(used, self.recorded)


class Alerts(unittest.TestCase):
    def setUp(self):
        self.alerts = [rule for rule in rules() if "alert" in rule]
        self.runbook = text_of("docs/runbook.md")

    def test_each_says_what_it_means_and_where_help_is(self):
        for alert in self.alerts:
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], ("page", "warning"))
                self.assertEqual({"summary", "impact", "runbook"}, alert["annotations"].keys())
                self.assertEqual(f"docs/runbook.md#{alert['alert'].lower()}",
                                 alert["annotations"]["runbook"])

    def test_the_runbook_has_a_section_for_each_and_for_no_other(self):
        sections = re.findall(r"^### (\w+)$", self.runbook, re.MULTILINE)
        self.assertEqual([alert["alert"] for alert in self.alerts], sections)

    def test_each_is_shown_to_fire(self):
        cases = yaml.safe_load(text_of("tests/deploy/alert_cases.yaml"))
        self.assertEqual({alert["alert"] for alert in self.alerts},
                         {case["alert"] for case in cases})


class Chart(unittest.TestCase):
    def setUp(self):
        self.schema = json.loads((CHART / "values.schema.json").read_text())
        self.values = yaml.safe_load((CHART / "values.yaml").read_text())

    def test_the_default_values_keep_the_schema(self):
        jsonschema.Draft7Validator.check_schema(self.schema)
        jsonschema.validate(self.values, self.schema)

    def test_the_schema_is_strict_everywhere(self):
        def walk(schema, path):
            if schema.get("type") == "object" and "properties" in schema:
                self.assertIs(schema.get("additionalProperties"), False, path)
                for key, below in schema["properties"].items():
                    walk(below, f"{path}.{key}")
            if "items" in schema:
                walk(schema["items"], f"{path}[]")
        walk(self.schema, "values")

    def test_every_value_is_used(self):
        templates = "".join(path.read_text() for path in CHART.glob("templates/**/*")
                            if path.is_file())
        def leaves(values):
            for key, value in values.items():
                yield key
                if isinstance(value, dict):
                    yield from leaves(value)
        for key in leaves(self.values):
            if key in PASSED_ON_WHOLE:
                continue
            self.assertRegex(templates, rf"\.{key}\b", key)

    def test_the_version_is_that_of_the_programs(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual(version(), chart["appVersion"])
        self.assertIn(f"AUTOSP_VERSION:-{version()}}}", text_of("deploy/compose/compose.yaml"))


class Flags(unittest.TestCase):
    """Whoever starts a program passes options that it has."""

    def options_of(self, program):
        text = text_of(PROGRAMS[program])
        found = re.findall(r'add_option\(\s*"(--[\w-]+)"', text)
        if "AddTlsFlags(" in text:
            found += re.findall(r'\badd\("(--[\w-]+)"', text_of("proto/tls_flags.cc"))
        return set(found)

    def check(self, program, where, text):
        used = set(re.findall(r"(?<![\w-])(--[a-z][\w-]+)", text))
        self.assertTrue(used, f"{where} passes no option; has its form changed?")
        self.assertLessEqual(used, self.options_of(program), where)

    def test_of_the_chart(self):
        for program in PROGRAMS:
            self.check(program, "chart", (CHART / f"templates/{program}.yaml").read_text())
        # Of both: --tls-cert and so on.
        shared = (CHART / "templates/_helpers.tpl").read_text()
        self.check("agent", "helpers", "".join(re.findall(r"^- (--.*)$", shared, re.MULTILINE)))

    def test_of_the_systemd_units(self):
        for program in PROGRAMS:
            unit = text_of(f"deploy/systemd/autosp-{program}.service")
            start = re.search(r"^ExecStart=(?:.*\\\n)*.*$", unit, re.MULTILINE)[0]
            self.check(program, "unit", start)

    def test_of_the_compose_file(self):
        services = yaml.safe_load(text_of("deploy/compose/compose.yaml"))["services"]
        for program in PROGRAMS:
            self.check(program, "compose", " ".join(services[program]["command"]))


class Files(unittest.TestCase):
    def test_yaml_and_json_can_be_read(self):
        count = 0
        for folder in ("deploy", "helm"):
            for path in sorted((SOURCE / folder).rglob("*")):
                if "templates" in path.parts or not path.is_file():
                    continue
                with self.subTest(str(path.relative_to(SOURCE))):
                    if path.suffix == ".json":
                        json.loads(path.read_text())
                    elif path.suffix in (".yaml", ".yml"):
                        list(yaml.safe_load_all(path.read_text()))
                    else:
                        continue
                    count += 1
        self.assertGreater(count, 8)

    def test_generated_files_are_what_their_generators_write(self):
        for generator in GENERATORS:
            result = subprocess.run([sys.executable, "-B", SOURCE / generator, "--check"],
                                    capture_output=True, text=True, check=False)
            self.assertEqual(0, result.returncode, result.stderr)

    def test_prometheus_scrapes_the_ports_that_the_programs_have(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        config = yaml.safe_load(text_of("deploy/compose/prometheus.yml"))
        ports = {scrape["job_name"]: scrape["static_configs"][0]["targets"][0].split(":")[1]
                 for scrape in config["scrape_configs"]}
        self.assertEqual({"autosp-coordinator": str(values["coordinator"]["metricsPort"]),
                          "autosp-agent": str(values["agent"]["metricsPort"])}, ports)

    def test_the_variables_of_the_compose_file_are_documented(self):
        used = set(re.findall(r"\$\{(\w+):-", text_of("deploy/compose/compose.yaml")))
        documented = re.findall(r"^\| `(\w+)` \|", text_of("docs/install/laptop.md"), re.MULTILINE)
        self.assertEqual(used, set(documented))

    def test_documents_link_to_files_that_exist(self):
        for path in [*pathlib.Path(SOURCE / "docs/install").glob("*.md"),
                     SOURCE / "docs/runbook.md"]:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
                self.assertTrue((path.parent / link).exists(), f"{path.name} links to {link}")


if __name__ == "__main__":
    unittest.main()
