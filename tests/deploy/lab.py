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


def skip(why):
    print(f"skipped: {why}; run ./run lab")
    sys.exit(SKIPPED)


def need(*names):
    """Paths of the named tools; ends the test as skipped where one is missing.

    These tests take minutes, so they wait for somebody to ask for them with ./run lab, also where
    the machine happens to have the tools.
    """
    if not (lab_folder() / ".ready").is_file():
        skip(f"{lab_folder()} is not there")
    paths = [shutil.which(name, path=f"{lab_folder() / 'bin'}:{os.environ['PATH']}")
             for name in names]
    missing = [name for name, path in zip(names, paths) if path is None]
    if missing:
        skip(f"{', '.join(missing)} not in {lab_folder()}/bin or PATH")
    return paths


def need_root():
    if os.getuid() != 0:
        skip("this needs root")
