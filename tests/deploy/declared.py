"""The metrics that the C++ sources declare, and what an expression of PromQL uses of them."""

import re

from lab import SOURCE

HEADERS = ("server/metrics.h", "worker/agent/metrics.h")
DEFINITION = re.compile(
    r'\.name = "(?P<name>autosp_\w+)",\s*\.kind = MetricKind::k(?P<kind>\w+),'
    r'(?:\s*\.labels = \{(?P<labels>[^}]*)\},)?')
# Of the scrape rather than of the metric.
TARGET_LABELS = {"job", "instance", "node"}
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")


def declared_metrics():
    """{name as Prometheus shows it: its labels}; a histogram has three names."""
    metrics = {}
    for header in HEADERS:
        for found in DEFINITION.finditer((SOURCE / header).read_text()):
            labels = set(re.findall(r'"(\w+)"', found["labels"] or ""))
            if found["kind"] == "Histogram":
                for suffix in HISTOGRAM_SUFFIXES:
                    metrics[found["name"] + suffix] = labels | (
                        {"le"} if suffix == "_bucket" else set())
            else:
                metrics[found["name"]] = labels
    return metrics


def uses(expr):
    """Yields (metric, labels that its selector names)."""
    for name, selector in re.findall(r"\b(autosp_\w+)(\{[^}]*\})?", expr):
        without_values = re.sub(r'"[^"]*"', "", selector)
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", without_values))


def grouping_labels(expr):
    """Labels in by (...), on (...) and their like."""
    lists = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expr)
    return {label.strip() for text in lists for label in text.split(",") if label.strip()}


def mistakes(expr, metrics):
    """Yields a sentence for everything in `expr` that no source declares."""
    known = set(TARGET_LABELS)
    for name, labels in uses(expr):
        if name not in metrics:
            yield f"no source declares {name}"
            continue
        known |= metrics[name]
        for label in labels - metrics[name] - TARGET_LABELS:
            yield f"{name} has no label {label}"
    if any(True for _ in uses(expr)):
        for label in grouping_labels(expr) - known:
            yield f"no metric of {expr!r} has the label {label}"
