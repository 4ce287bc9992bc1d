"""Throughput of gloo's all_to_all_single between processes of this machine.

    python all_to_all_gloo.py --world-size=2 --json

A size is the bytes of each rank's input buffer, of which (P - 1) / P leave the rank. Throughput is
the bytes that leave one rank, divided by the time of the call; the slowest rank's median counts.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import llama_training as peer

SIZES_BYTES = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20]
MIN_SECONDS_PER_SIZE = 1.0
MIN_ITERATIONS = 5


def measure_size(dist, torch, size_bytes: int, world_size: int) -> dict:
    source = torch.ones(size_bytes // 4)
    target = torch.empty_like(source)

    def median_seconds(iterations):
        seconds = []
        for _ in range(iterations):
            dist.barrier()
            start = time.perf_counter()
            dist.all_to_all_single(target, source)
            seconds.append(time.perf_counter() - start)
        # All ranks must agree, on the time and so on the number of iterations that follow.
        slowest = torch.tensor(statistics.median(seconds), dtype=torch.float64)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return slowest.item()

    estimate = median_seconds(MIN_ITERATIONS)
    iterations = max(MIN_ITERATIONS, min(1000, int(MIN_SECONDS_PER_SIZE / estimate)))
    seconds = median_seconds(iterations)
    sent_bytes = size_bytes * (world_size - 1) // world_size
    return {
        "size_bytes": size_bytes,
        "iterations": iterations,
        "seconds_median": seconds,
        "bytes_per_second": sent_bytes / seconds,
    }


def run_rank(rank, arguments, store_path):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(arguments.threads)
    store = dist.FileStore(store_path, arguments.world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=arguments.world_size)
    rows = [measure_size(dist, torch, size, arguments.world_size) for size in SIZES_BYTES]
    dist.destroy_process_group()
    if rank != 0:
        return
    if arguments.json:
        print(
            json.dumps(
                {
                    "peer": "gloo_all_to_all",
                    "world_size": arguments.world_size,
                    "threads": arguments.threads,
                    "load_average": os.getloadavg()[0],
                    "sizes": rows,
                }
            )
        )
        return
    for row in rows:
        print(
            f"{row['size_bytes'] / 2**10:8.0f} KiB  {row['seconds_median'] * 1e6:10.0f} us  "
            f"{row['bytes_per_second'] / 1e9:6.2f} GB/s"
        )


def main():
    parser = argparse.ArgumentParser(description="Measures gloo's all_to_all_single.")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    peer.limit_threads(arguments.threads)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # Ranks share the machine.
    import torch.multiprocessing as multiprocessing

    with tempfile.TemporaryDirectory() as scratch:
        store_path = os.path.join(scratch, "store")
        multiprocessing.spawn(run_rank, (arguments, store_path), nprocs=arguments.world_size)


if __name__ == "__main__":
    main()
