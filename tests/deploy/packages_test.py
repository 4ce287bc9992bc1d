"""The Debian packages are whole, and the systemd units in them verify and are closed."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from lab import SOURCE, need, version

ANALYZE, DPKG = need("systemd-analyze", "dpkg-deb")
BUILD = SOURCE / "deploy/packages/build.sh"
# How exposed systemd-analyze may find a unit, in tenths; lower is safer.
EXPOSURE = {"coordinator": 20, "agent": 40}
PACKAGES = {
    "autosp-common": "all", "autosp-cli": "amd64", "autosp-coordinator": "amd64",
    "autosp-agent": "amd64"}


def run(*command, **env):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          env={**os.environ, **env})


class PackagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="autosp-packages-"))
        cls.root = cls.folder / "root"
        cls.built = run(BUILD, cls.folder)
        for name in PACKAGES:
            run(DPKG, "-x", cls.path(name), cls.root)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return cls.folder / f"{name}_{version()}_{PACKAGES[name]}.deb"

    def field(self, name, field):
        return run(DPKG, "-f", self.path(name), field).stdout.strip()

    def unit(self, part):
        return self.root / f"usr/lib/systemd/system/autosp-{part}.service"

    def verify(self, unit):
        # The programs are not in this machine's /usr/bin; those of the folder are as good.
        copy = self.root / unit.name
        copy.write_text(unit.read_text().replace("=/usr/bin/", f"={self.root}/usr/bin/"))
        return run(ANALYZE, "verify", "--man=no", "--recursive-errors=no", copy)

    def test_they_are_built(self):
        self.assertEqual(0, self.built.returncode, self.built.stderr)

    def test_programs_run_with_what_is_in_them(self):
        for program in ("coordinator", "agent", "rank", "verify", "cli"):
            path = self.root / f"usr/bin/autosp-{program}"
            # The library path of the build is gone with the build; /usr/lib/autosp stands in.
            result = run(path, "--help", LD_LIBRARY_PATH=str(self.root / "usr/lib/autosp"))
            self.assertEqual(0, result.returncode, result.stderr)
        self.assertTrue((self.root / "usr/lib/autosp/libtorch_cpu.so").is_file())
        for name in ("model.pt2", "text.txt", "job.yaml"):
            self.assertTrue((self.root / "usr/share/autosp/smoke" / name).is_file())

    def test_libraries_of_debian_are_dependencies_instead(self):
        self.assertIn("libgrpc++1.51", self.field("autosp-agent", "Depends"))
        self.assertFalse((self.root / "usr/lib/autosp/libgrpc.so.29").exists())
        self.assertIn("libsqlite3-0", self.field("autosp-coordinator", "Depends"))
        self.assertNotIn("libsqlite3-0", self.field("autosp-agent", "Depends"))

    def test_documents_are_where_units_and_other_documents_say(self):
        for part in EXPOSURE:
            page = re.search(r"^Documentation=file:/(.+)$", self.unit(part).read_text(), re.M)
            self.assertTrue((self.root / page[1]).is_file(), page[1])
        folder = self.root / "usr/share/doc/autosp"
        self.assertTrue((folder / "runbook.md").is_file(), "which alerts name")
        for name in ("install/bare-metal.md", "install/README.md", "runbook.md"):
            page = folder / name
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
                self.assertTrue((page.parent / link).exists(), f"{name} links to {link}")

    def test_no_file_is_in_two(self):
        seen = {}
        for name in PACKAGES:
            for line in run(DPKG, "-c", self.path(name)).stdout.splitlines():
                path = line.split()[5]
                if not path.endswith("/"):
                    self.assertNotIn(path, seen, f"{name} and {seen.get(path)}")
                    seen[path] = name
        self.assertGreater(len(seen), 15)

    def test_units_verify(self):
        for part in EXPOSURE:
            with self.subTest(part):
                result = self.verify(self.unit(part))
                self.assertEqual((0, ""), (result.returncode, result.stderr.strip()))

    def test_a_mistake_in_a_unit_is_found(self):
        unit = self.root / "broken.service"
        unit.write_text(self.unit("agent").read_text().replace("KillMode=mixed", "KillMode=never"))
        self.assertIn("never", self.verify(unit).stderr)

    def test_units_are_closed(self):
        for part, limit in EXPOSURE.items():
            with self.subTest(part):
                result = run(ANALYZE, "security", "--offline=yes", f"--threshold={limit}",
                             "--no-pager", self.unit(part))
                self.assertEqual(0, result.returncode, result.stdout[-400:] + result.stderr)

    def test_without_a_build_it_says_what_to_do(self):
        result = run(BUILD, self.folder / "none", AUTOSP_BIN="/nonexistent")
        self.assertEqual(1, result.returncode)
        self.assertIn("run ./run build", result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
