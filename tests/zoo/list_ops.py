"""Prints the tables of README.md: which ops each archive of the zoo calls, and how many nodes.

    python list_ops.py
"""

from pathlib import Path

import archive
from families import FAMILIES
from models import ZOO

ZOO_DIR = Path(__file__).resolve().parent


def short_name(target: str) -> str:
    return target.removeprefix("torch.ops.").removeprefix("higher_order.")


def print_table(entries):
    archives = {
        entry.name: archive.called_ops(ZOO_DIR / entry.name / "model.pt2") for entry in entries
    }
    print("| op | " + " | ".join(f"`{name}`" for name in archives) + " |")
    print("|---|" + "---|" * len(archives))
    for target in sorted(set().union(*archives.values()), key=short_name):
        cells = (str(ops.get(target, "")) for ops in archives.values())
        print(f"| `{short_name(target)}` | " + " | ".join(cells) + " |")
    totals = (f"{len(ops)}, {sum(ops.values())}" for ops in archives.values())
    print("| distinct ops, nodes | " + " | ".join(totals) + " |")


def main():
    print_table(entry for entry in ZOO if not (entry.is_on_demand or entry.is_brief))
    print()
    print_table(FAMILIES)


if __name__ == "__main__":
    main()
