"""Compares two runs of one job: python3 compare_losses.py ONE.jsonl TWO.jsonl.

The files are the metrics.jsonl of the runs. Shows the first losses side by side.
Fails when they differ by more than fp32 rounding explains, or when the second run has not learned.
"""

import json
import sys

SHOWN_STEPS = 10
# Sums are ordered differently on one rank and on two, and a few updates let rounding grow.
MAX_RELATIVE_DIFFERENCE = 1e-4
# Random bytes cost ln 256 = 5.5; text is learned within a few dozen steps.
MIN_FALL = 0.3


def losses_of(path):
    losses = {}
    with open(path) as lines:
        for line in lines:
            metrics = json.loads(line)
            losses[metrics["step"]] = metrics["loss"]
    return losses


def main():
    one, two = (losses_of(path) for path in sys.argv[1:3])
    steps = sorted(set(one) & set(two))[:SHOWN_STEPS]
    if not steps:
        print("the runs have no step in common", file=sys.stderr)
        return 1
    print("step     one rank    two ranks   relative difference")
    worst = 0.0
    for step in steps:
        difference = abs(one[step] - two[step]) / abs(one[step])
        worst = max(worst, difference)
        print(f"{step:4}   {one[step]:10.6f}   {two[step]:10.6f}   {difference:.1e}")
    if not worst <= MAX_RELATIVE_DIFFERENCE:
        print(f"the losses differ by {worst:.1e}, more than {MAX_RELATIVE_DIFFERENCE}",
              file=sys.stderr)
        return 1
    first, last = two[min(two)], two[max(two)]
    if not last < (1.0 - MIN_FALL) * first:
        print(f"the loss went from {first:.4f} to {last:.4f}: it has not fallen by "
              f"{MIN_FALL:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
