"""Where the parts are that tests of label deploy need, and how a test without them ends."""

import os
import pathlib
import re
import shutil
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
CHART = SOURCE / "helm" / "autosp"
RULES = CHART / "rules" / "alerts.yaml"
DASHBOARDS = CHART / "dashboards"
SKIPPED = 77  # What ctest counts as skipped.


def version():
    """That of the programs, which images and the chart carry as well."""
    return re.search(r'kVersion\[\] = "([^"]+)"', (SOURCE / "common/version.h").read_text())[1]


def lab_folder():
    deps = os.environ.get("AUTOSP_DEPS", SOURCE / ".deps")
    return pathlib.Path(os.environ.get("AUTOSP_LAB", pathlib.Path(deps) / "lab"))


def skip(why, command="./run lab"):
    print(f"skipped: {why}; run {command}")
    sys.exit(SKIPPED)


def need(*names, parts=None):
    """Paths of the named tools; ends the test as skipped where one is missing.

    These tests take minutes, so they wait for somebody to ask for them with ./run lab, also where
    the machine happens to have the tools. `parts` is the argument that it has to be asked with.
    """
    command = f"./run lab {parts}" if parts else "./run lab"
    ready = lab_folder() / (f".ready-{parts}" if parts else ".ready")
    if not ready.is_file():
        skip(f"{ready} is not there", command)
    paths = [shutil.which(name, path=search_path()) for name in names]
    missing = [name for name, path in zip(names, paths) if path is None]
    if missing:
        skip(f"{', '.join(missing)} not in {lab_folder()}/bin or PATH", command)
    return paths


def search_path():
    return f"{lab_folder() / 'bin'}:{os.environ['PATH']}"


def need_root():
    if os.getuid() != 0:
        skip("this needs root")
