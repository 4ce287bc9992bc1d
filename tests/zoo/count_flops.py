"""Counts the floating point operations of the zoo's models with PyTorch's own counter.

    python count_flops.py            writes flops.json beside this file

One forward and backward of each module on a batch of 2 x 32, by kind of work. The counter takes all
pairs of query and key, and all channels for the weight of a grouped convolution; here the pairs are
those that the mask in hand leaves, and the channels those of the group (compiler/rules/op_flops.h).
"""

import json
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from models import ZOO
from references import make_batch
from zoo_model import EXPORT_BATCH, EXPORT_SEQ_LEN, ZooModel, initialize

ZOO_DIR = Path(__file__).resolve().parent
aten = torch.ops.aten

FORWARD = aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward

KINDS = {
    aten.mm: "product",
    aten.addmm: "product",
    aten.bmm: "product",
    aten.baddbmm: "product",
    aten.convolution: "convolution",
    aten.convolution_backward: "convolution",
    FORWARD: "attention",
    BACKWARD: "attention",
}


def attended_part(query, key, is_causal, attn_mask):
    """The part of all pairs of query and key that may attend."""
    pairs = torch.ones(query.shape[-2], key.shape[-2])
    if is_causal:
        pairs = pairs.tril()
    if attn_mask is not None:
        pairs = pairs * (attn_mask > torch.finfo(attn_mask.dtype).min / 2)
    return pairs.mean(dtype=torch.float64).item()


def raw(count):
    """Marks a formula that takes tensors in place of their shapes."""
    count._get_raw = True
    return count


@raw
def forward(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, **others):
    flops = flop_registry[FORWARD](query, key, value, out_val=None)
    return round(flops * attended_part(query, key, is_causal, attn_mask))


@raw
def backward(grad, query, key, value, out, lse, dropout_p, is_causal, *, attn_mask=None, **others):
    flops = flop_registry[BACKWARD](grad, query, key, value, out_val=None)
    return round(flops * attended_part(query, key, is_causal, attn_mask))


@raw
def convolution_backward(*args, **others):
    grad, weight, output_mask = args[0], args[2], args[10]
    of_one = 2 * grad.numel() * weight.numel() // weight.shape[0]
    return of_one * sum(output_mask[:2])


FORMULAS = {FORWARD: forward, BACKWARD: backward, aten.convolution_backward: convolution_backward}


def count(entry: ZooModel) -> dict[str, int]:
    """Operations by kind, forward and backward together."""
    module = initialize(entry)
    batch = make_batch(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=7)
    if "attention_mask" in batch:
        batch["attention_mask"].fill_(1)  # What is padding is data, which no plan knows.
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        module(**batch).backward()
    flops = {"product": 0, "convolution": 0, "attention": 0}
    for op, number in counter.get_flop_counts()["Global"].items():
        flops[KINDS[op]] += number
    return flops


def main():
    torch.set_num_threads(1)
    flops = {entry.name: count(entry) for entry in ZOO if not entry.is_on_demand}
    (ZOO_DIR / "flops.json").write_text(json.dumps(flops, indent=2) + "\n")


if __name__ == "__main__":
    main()
