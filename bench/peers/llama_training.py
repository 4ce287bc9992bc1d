"""What the training peers share: the model, the batch, the step and how it is measured.

Peers run from their own Python environment. Set the number of threads before torch is imported:
call limit_threads() first.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
SEED = 0


def make_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seq-len", type=int, default=4096, help="tokens of the whole sequence")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--warmup-steps", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="measured steps")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def limit_threads(threads: int) -> None:
    """Requires: torch is not imported yet, here or in a process that this one will start."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Spinning threads of two ranks on two cores would take each other's time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def build_model(dtype: str, attention: str = "sdpa"):
    """The zoo's llama_bench, as Hugging Face builds it, with seeded weights."""
    import torch
    import transformers

    sys.path.insert(0, str(REPOSITORY / "tests" / "zoo"))
    from models import llama_bench_config

    torch.manual_seed(SEED)
    config = llama_bench_config()
    config._attn_implementation = attention
    return transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).train()


def make_batch(batch_size: int, seq_len: int, vocab_size: int):
    """Tokens and their next tokens, both [batch_size, seq_len]."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(0, vocab_size, (batch_size, seq_len + 1), generator=generator)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def make_optimizer(model):
    import torch

    return torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )


class AllocatorMeter:
    """Counts the bytes that PyTorch's CPU allocator has handed out, exactly, by its own events.

    Requires: started before the first tensor is made, since frees of older ones are not seen.
    """

    def __init__(self):
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def start(self):
        self._profile.start()

    def stop_and_peak_bytes(self) -> int:
        self._profile.stop()
        events = self._profile.profiler.kineto_results.events()
        changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
        live = peak = 0
        for _, change in sorted(changes, key=lambda item: item[0]):
            live += change
            peak = max(peak, live)
        return peak


def persistent_bytes(model, optimizer) -> int:
    """Parameters, their gradients, and the optimizer's state."""
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    state = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if hasattr(value, "numel")
    )
    return 2 * parameters + state


def time_steps(step, warmup_steps: int, steps: int) -> list[float]:
    """Seconds of each measured step."""
    for _ in range(warmup_steps):
        step()
    gc.collect()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def summarize(seconds: list[float], tokens_per_step: int) -> dict:
    import statistics

    median = statistics.median(seconds)
    return {
        "step_seconds": seconds,
        "step_seconds_median": median,
        "tokens_per_second": tokens_per_step / median,
        "load_average": os.getloadavg()[0],
    }
