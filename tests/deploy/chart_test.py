"""Helm lints, renders and tests the chart; kubeconform holds it against Kubernetes' schemas."""

import itertools
import re
import subprocess
import sys
import unittest

from chart_values import GUIDE, VARIANTS, guide_values, set_all
from lab import CHART, lab_folder, need

HELM, UNITTEST, KUBECONFORM = need("helm", "helm-unittest", "kubeconform")


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          **options)


def render(version, settings):
    return run(HELM, "template", "train", CHART, "--namespace", "ml", "--kube-version", version,
               *set_all(settings))


class ChartTest(unittest.TestCase):
    def test_lint(self):
        result = run(HELM, "lint", "--strict", CHART)
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)

    def test_unit_tests(self):
        result = run(UNITTEST, "--strict", CHART)
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        self.assertRegex(result.stdout, r"Tests: +\d\d+ passed, \d+ total")

    def test_every_variant_keeps_the_schema_of_every_version(self):
        schemas = lab_folder() / "schemas"
        versions = sorted(path.name for path in schemas.iterdir())
        self.assertGreater(len(versions), 3)
        for version, (name, settings) in itertools.product(versions, VARIANTS.items()):
            with self.subTest(version=version, variant=name):
                rendered = render(version, settings)
                self.assertEqual(0, rendered.returncode, rendered.stderr)
                location = f"{schemas / version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
                # These two are resources of the Prometheus operator, not of Kubernetes.
                checked = run(KUBECONFORM, "-strict", "-summary", "-schema-location", location,
                              "-skip", "ServiceMonitor,PrometheusRule", "-", input=rendered.stdout)
                self.assertEqual(0, checked.returncode, checked.stdout)
                self.assertIn("Errors: 0", checked.stdout)

    def test_the_values_of_the_guide_are_taken(self):
        text = GUIDE.read_text()
        result = run(HELM, "template", "autosp", CHART, "--values", "-", input=guide_values())
        self.assertEqual(0, result.returncode, result.stderr)
        kinds = re.findall(r"^kind: (\w+)$", result.stdout, re.MULTILINE)
        for kind, count in (("ServiceMonitor", 2), ("PrometheusRule", 1), ("ConfigMap", 3)):
            self.assertEqual(count, kinds.count(kind), kind)
        for name in re.findall(r"(?:statefulset|daemonset|pod)/([\w-]+)", text):
            self.assertIn(f"name: {name.removesuffix('-0')}\n", result.stdout)

    def test_a_mistake_in_a_manifest_is_found(self):
        rendered = render("1.34", []).stdout.replace("terminationGracePeriodSeconds",
                                                     "terminationGraceSeconds")
        location = f"{lab_folder()}/schemas/1.34/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        checked = run(KUBECONFORM, "-strict", "-schema-location", location, "-", input=rendered)
        self.assertNotEqual(0, checked.returncode)

    def test_an_old_kubernetes_is_refused(self):
        result = render("1.26", [])
        self.assertNotEqual(0, result.returncode)
        self.assertIn("1.27.0", result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
