"""Writes docs/install/helm-values.md from the chart's schema and values: [--check].

The schema says what a value means and what it may be, values.yaml what it is by default. A value
that only one of the two has, or that has no description, is an error.
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "autosp"
TARGET = ROOT / "docs" / "install" / "helm-values.md"
HEADER = """# Values of the chart

Made from `helm/autosp/values.schema.json` and `helm/autosp/values.yaml`; a test holds it to them.
The schema refuses unknown keys, and the chart refuses values that contradict each other, with the
reason.

| value | type | default | meaning |
|---|---|---|---|
"""


class Mismatch(Exception):
    """The schema and values.yaml disagree."""


def kind(schema):
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{schema['type']} from {low} to {high}"
    return {"boolean": "true or false", "array": "list", "object": "map"}.get(
        schema["type"], schema["type"])


def is_section(schema):
    """A map whose keys are values of their own, rather than a value."""
    return schema.get("type") == "object" and "properties" in schema and "description" not in schema


def rows(schema, values, path=""):
    """Yields (path, schema, default) of every value below `path`."""
    known = schema["properties"].keys() - {"global"}
    if known != values.keys():
        odd = ", ".join(f"{path}{key}" for key in sorted(known ^ values.keys()))
        raise Mismatch(f"only one of values.schema.json and values.yaml has: {odd}")
    for key, default in values.items():
        below = schema["properties"][key]
        if is_section(below):
            yield from rows(below, default, f"{path}{key}.")
        elif "description" not in below:
            raise Mismatch(f"{path}{key} has no description in values.schema.json")
        else:
            yield f"{path}{key}", below, default
            yield from item_rows(below, f"{path}{key}")


def item_rows(schema, path):
    """What the entries of a list of maps may have."""
    items = schema.get("items", {})
    for key, below in items.get("properties", {}).items():
        if "description" in below:
            yield f"{path}[].{key}", below, None


def render():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = HEADER
    for path, below, default in rows(schema, values):
        shown = "" if default is None else f"`{json.dumps(default)}`"
        meaning = re.sub(r"\s+", " ", below["description"]).replace("|", "\\|")
        text += f"| `{path}` | {kind(below)} | {shown} | {meaning} |\n"
    return text


def main():
    try:
        text = render()
    except Mismatch as mismatch:
        sys.exit(f"helm_values_doc: {mismatch}")
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(text)
    elif not TARGET.is_file() or TARGET.read_text() != text:
        sys.exit(f"{TARGET.name} is stale; run python3 deploy/helm_values_doc.py")


if __name__ == "__main__":
    main()
