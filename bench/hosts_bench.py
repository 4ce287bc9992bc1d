"""all_to_all over TCP between two network namespaces, against a plain TCP connection beside it.

    ./run hosts-bench            # as root; skipped, with the reason, where hosts cannot be made

In an all_to_all of two ranks half of each rank's buffer goes to the other, both ways at the same
time; the peer is a connection that does the same with plain send and recv. Pairs of runs in turns,
medians of their ratios. What one direction alone moves is printed beside it.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "process"))
import netns  # noqa: E402: it is where the tests have it

GOAL = 0.8
GOAL_FROM_BYTES = 1 << 20  # of smaller ones the time is that of waking up


def pair(hosts, first, second):
    """Runs a command on host a and one on host b; returns the JSON that either prints."""
    processes = [subprocess.Popen([*hosts.inside(host), *map(str, command)], text=True,
                                  stdout=subprocess.PIPE)
                 for host, command in (("a", first), ("b", second))]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    if any(process.returncode != 0 for process in processes):
        sys.exit("bench: a side has failed")
    lines = [line for output in outputs for line in output.splitlines() if line.startswith("{")]
    return {row["size_bytes"]: row["bytes_per_second"] for row in json.loads(lines[-1])["sizes"]}


def sockets(hosts, binaries, port, *flags):
    address = f"{hosts.data_address('a')}:{port}"
    late = ["sh", "-c", 'sleep 1; exec "$@"', "sh"]
    return pair(hosts, [binaries / "socket_bench", "--listen", address, *flags],
                [*late, binaries / "socket_bench", "--connect", address, *flags])


def all_to_all(hosts, binaries, port):
    addresses = ",".join(f"{hosts.data_address(host)}:{port}" for host in "ab")
    command = [binaries / "collectives_bench", "--addresses", addresses, "--json", "--rank"]
    return pair(hosts, [*command, 0], [*command, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "build" / "dev" / "bin")
    options = parser.parse_args()
    if reason := netns.skip_reason():
        print(f"bench: skipped: {reason}")
        return
    hosts = netns.Hosts()
    one_way, both_ways, ours = [], [], []
    try:
        for turn in range(options.rounds):
            port = 7100 + 10 * turn
            one_way.append(sockets(hosts, options.binaries, port))
            both_ways.append(sockets(hosts, options.binaries, port + 1, "--both-ways"))
            ours.append(all_to_all(hosts, options.binaries, port + 2))
    finally:
        hosts.close()
    print("MB/s each way       all_to_all   sockets both ways   ratio   sockets one way")
    is_met = True
    for size in sorted(both_ways[0]):
        # The bytes that move are the same when the buffer of all_to_all is twice as large.
        pairs = [(mine[2 * size], plain[size]) for mine, plain in zip(ours, both_ways)]
        ratio = statistics.median(mine / plain for mine, plain in pairs)
        is_met &= ratio >= GOAL or size < GOAL_FROM_BYTES
        print(f"{size >> 10:8} KiB   {statistics.median(p[0] for p in pairs) / 1e6:14.0f}"
              f"{statistics.median(p[1] for p in pairs) / 1e6:20.0f}{ratio:8.2f}"
              f"{statistics.median(run[size] for run in one_way) / 1e6:18.0f}")
    print(f"goal: at least {GOAL} from {GOAL_FROM_BYTES >> 20} MiB on"
          f"{'' if is_met else '  MISSED'}")
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
