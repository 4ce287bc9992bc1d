"""Checks every tracked file against rules.py: python3 tests/tidy/tidy_test.py [ROOT]."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from rules import check_all  # noqa: E402
from source import read_tree  # noqa: E402


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(here))
    files = read_tree(root)
    if not any(file.is_cpp for file in files):
        print(f"tidy: no C++ file under {root}; nothing would be checked", file=sys.stderr)
        return 2
    violations = check_all(files)
    for violation in violations:
        print(violation)
    print(f"tidy: {len(files)} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
