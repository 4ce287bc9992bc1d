"""The images are built without a registry, start as nobody in particular, and train.

buildah runs them without a container runtime: in a chroot, on the network of this machine. What
keeps the root read-only is Kubernetes or compose; here it is the rights of the user.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from lab import SOURCE, lab_folder, need, need_root, version

sys.path.insert(0, str(SOURCE / "tests" / "process"))

from cluster import free_port, wait_until  # noqa: E402

BUILDAH, HADOLINT = need("buildah", "hadolint")
ROOTFS = lab_folder() / "debian-12.tar"
IMAGES = ("coordinator", "agent")


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          **options)


class ImagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="autosp-images-")
        storage = lab_folder() / "storage.conf"
        storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{lab_folder()}/containers"\n'
                           f'runroot = "{cls.folder}/run"\n')
        # Neither overlays nor namespaces are to be had everywhere.
        cls.env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage),
                   "BUILDAH_ISOLATION": "chroot", "AUTOSP_IMAGE_FOLDER": f"{cls.folder}/context"}
        cls.containers = {}
        cls.processes = []
        cls.built = run(SOURCE / "deploy/images/build.sh", "--rootfs", ROOTFS, env=cls.env)
        if cls.built.returncode != 0:
            raise AssertionError(cls.built.stdout + cls.built.stderr)
        for image in IMAGES:
            made = run(BUILDAH, "from", f"localhost/autosp/{image}:{version()}", env=cls.env)
            cls.containers[image] = made.stdout.strip()

    @classmethod
    def tearDownClass(cls):
        for process in cls.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for container in cls.containers.values():
            run(BUILDAH, "rm", container, env=cls.env)
        # Bases are kept, since they take the longest; each build leaves its image behind.
        run(BUILDAH, "rmi", "--prune", env=cls.env)
        shutil.rmtree(cls.folder, ignore_errors=True)

    def inside(self, image, *command, env=()):
        settings = [f"--env={item}" for item in env]
        return [BUILDAH, "run", *settings, self.containers[image], "--", *map(str, command)]

    def start(self, image, *command):
        with open(f"{self.folder}/{image}.log", "wb") as log:
            process = subprocess.Popen(self.inside(image, *command), env=self.env, stdout=log,
                                       stderr=log, start_new_session=True)
        self.processes.append(process)

    def test_the_recipe_is_clean(self):
        result = run(HADOLINT, SOURCE / "deploy/images/Containerfile")
        self.assertEqual(0, result.returncode, result.stdout)

    def test_they_run_as_a_user_without_rights(self):
        for image in IMAGES:
            config = json.loads(run(BUILDAH, "inspect", "--type", "image",
                                    f"localhost/autosp/{image}:{version()}", env=self.env).stdout)
            self.assertEqual("10001:10001", config["OCIv1"]["config"]["User"])
            self.assertEqual("10001", run(*self.inside(image, "id", "-u"),
                                          env=self.env).stdout.strip())
            written = run(*self.inside(image, "touch", "/usr/bin/mine"), env=self.env)
            self.assertNotEqual(0, written.returncode)
            allowed = run(*self.inside(image, "touch", "/var/lib/autosp/mine"), env=self.env)
            self.assertEqual(0, allowed.returncode, allowed.stderr)

    def test_they_have_what_they_run_and_nothing_to_build_with(self):
        for image, programs in (("coordinator", ("autosp-coordinator", "autosp-cli")),
                                ("agent", ("autosp-agent", "autosp-rank", "autosp-verify"))):
            for program in programs:
                result = run(*self.inside(image, program, "--help"), env=self.env)
                self.assertEqual(0, result.returncode, f"{program}: {result.stderr}")
            for program in ("gcc", "python3", "curl"):
                result = run(*self.inside(image, "sh", "-c", f"command -v {program}"),
                             env=self.env)
                self.assertNotEqual(0, result.returncode, f"{image} has {program}")

    def test_they_train(self):
        port, agent_port = free_port(), free_port()
        address = f"127.0.0.1:{port}"
        self.start("coordinator", "autosp-coordinator", f"--listen={address}",
                   "--state-dir=/var/lib/autosp")
        nodes = self.inside("coordinator", "autosp-cli", "--server", address, "nodes", "--output",
                            "json")

        def answer():
            result = run(*nodes, env=self.env)
            return json.loads(result.stdout) if result.returncode == 0 else None
        self.assertIsNotNone(wait_until(answer, 60, "the coordinator answers"))
        self.start("agent", "autosp-agent", f"--coordinator={address}",
                   f"--listen=127.0.0.1:{agent_port}", "--node-name=image", "--devices=2",
                   "--state-dir=/var/lib/autosp")
        wait_until(lambda: any(node["state"] == "ready" for node in answer()["nodes"]), 60,
                   "the agent is ready")
        smoke = run(*self.inside("coordinator", "autosp-smoke", 2,
                                 env=[f"AUTOSP_SERVER={address}"]), env=self.env, timeout=200)
        self.assertEqual(0, smoke.returncode, smoke.stdout + smoke.stderr)
        self.assertIn("succeeded", smoke.stdout)


if __name__ == "__main__":
    need_root()
    unittest.main()
