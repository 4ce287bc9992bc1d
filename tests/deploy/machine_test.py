"""A new machine with Debian 12 installs the packages, boots, trains, and removes them again.

The machine is a container with a systemd of its own; it shares the network and the kernel.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from lab import SOURCE, lab_folder, need, need_root

sys.path.insert(0, str(SOURCE / "tests" / "process"))

from cluster import free_port  # noqa: E402

NSPAWN, = need("systemd-nspawn")
ROOTFS = lab_folder() / "debian-12.tar"
UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /trial.sh
"""
STEPS = ["trained", "runs as its own user", "the job is there after a restart",
         "the agent comes back", "removed, and the state is kept"]


class MachineTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="autosp-machine-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        subprocess.run(["tar", "-C", self.root, "-xf", ROOTFS], check=True)
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")

    def nspawn(self, *arguments, timeout):
        # Without --register it works where the machine itself was not booted by systemd.
        return subprocess.run([NSPAWN, "--quiet", "--register=no", "--keep-unit",
                               f"--directory={self.root}", *arguments], capture_output=True,
                              text=True, check=False, timeout=timeout)

    def install(self):
        subprocess.run([SOURCE / "deploy/packages/build.sh", self.root / "packages"], check=True,
                       capture_output=True)
        result = self.nspawn(
            "sh", "-ec", "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq"
            " --no-install-recommends systemd-sysv dbus /packages/*.deb", timeout=400)
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        shutil.rmtree(self.root / "packages")

    def configure(self):
        coordinator, agent = (f"127.0.0.1:{free_port()}" for _ in range(2))
        etc = self.root / "etc/autosp"
        (etc / "coordinator.env").write_text(
            f"LISTEN={coordinator}\nMETRICS_PORT={free_port()}\nLEASE_SECONDS=60\n")
        (etc / "agent.env").write_text(
            f"COORDINATOR={coordinator}\nLISTEN={agent}\nMETRICS_PORT={free_port()}\n"
            "OPTIONS=--devices=2 --node-name=machine\n")
        shutil.copy(pathlib.Path(__file__).with_name("machine_trial.sh"), self.root / "trial.sh")
        (self.root / "etc/systemd/system/trial.service").write_text(UNIT)
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "trial.service").symlink_to("../trial.service")

    def test_the_guide_for_bare_metal(self):
        self.install()
        self.configure()
        booted = self.nspawn("--boot", timeout=300)
        log = self.root / "trial.log"
        text = log.read_text() if log.is_file() else booted.stdout + booted.stderr
        steps = [line[len("step: "):] for line in text.splitlines() if line.startswith("step: ")]
        self.assertEqual(STEPS, steps, text)


if __name__ == "__main__":
    need_root()
    unittest.main()
