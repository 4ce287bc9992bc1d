"""PyTorch's own numbers for a zoo model: loss, gradients, and weights after a few steps.

B batch, S sequence. All numbers are fp32 of eager PyTorch on one thread.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from families import IMAGE_SIZE, NUM_CLASSES
from patches_and_text import NUM_PATCHES, PATCH_FEATURES
from zoo_model import (
    EXPORT_BATCH,
    EXPORT_SEQ_LEN,
    IGNORE_INDEX,
    ZooModel,
    initialize,
    initialize_oracle,
)

NUM_STEPS = 3
CLIP_NORM = 1.0
SGD = dict(lr=0.1)
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)

# In the secondary files a large tensor is its flattened elements 0, 7, 14, ...: enough to see any
# wrong gradient, in a seventh of the space. Seven divides no dimension of any model here.
SAMPLE_STRIDE = 7
SAMPLE_ABOVE = 1024


def make_batch(entry: ZooModel, B: int, S: int, seed: int) -> dict[str, torch.Tensor]:
    """Tokens with unequal numbers of valid labels per row and per part of the sequence.

    Row 0 ignores a prompt; the last row ignores its second half and, where the model takes a
    mask, ends in padding. With B = 1 both hold for the one row, so the shard that holds the last
    quarter of the sequence has no valid label.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, entry.vocab_size, (B, S + 1), generator=generator)
    is_valid = torch.ones(B, S, dtype=torch.bool)
    is_valid[0, :5] = False
    is_valid[-1, S // 2 :] = False
    attention_mask = torch.ones(B, S, dtype=torch.long)
    attention_mask[-1, S - 7 :] = 0
    if entry.is_masked_lm:
        is_valid &= torch.rand(B, S, generator=generator) < 0.3
    next_tokens = tokens[:, 1:].masked_fill(~is_valid, IGNORE_INDEX)
    if entry.is_image:
        return make_images(B, generator)
    batch = {
        "patches": torch.randn(B, NUM_PATCHES, PATCH_FEATURES, generator=generator),
        "input_ids": tokens[:, :-1].contiguous(),
        "attention_mask": attention_mask,
        "labels": tokens[:, :-1].masked_fill(~is_valid, IGNORE_INDEX),
        "shift_labels": next_tokens,
        "targets": next_tokens,
    }
    return {name: batch[name] for name in entry.inputs}


def make_images(B: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Images of noise, each with a class."""
    return {
        "pixel_values": torch.randn(B, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator),
        "labels": torch.randint(0, NUM_CLASSES, (B,), generator=generator),
    }


def gradients(module, batch):
    """The loss on a batch, and the gradient of every parameter by name."""
    module.zero_grad()
    loss = module(**batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in module.named_parameters()}


def sample(tensor):
    if tensor.numel() <= SAMPLE_ABOVE:
        return tensor
    return tensor.flatten()[::SAMPLE_STRIDE]


def prefixed(prefix, tensors):
    return {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}


def lower_precision_error(module, batch, grads):
    """How far eager PyTorch itself is from the fp32 gradients in the module's own precision.

    The error is the L2 norm of the difference over all gradients, relative to that of fp32.
    """
    own_loss, own_grads = gradients(module, batch)
    difference = sum((own_grads[name].float() - grads[name]).square().sum() for name in grads)
    total = sum(grad.square().sum() for grad in grads.values())
    return {"bf16.loss": own_loss.float(), "bf16.grad_error": (difference / total).sqrt()}


def batch_reference(entry, B, S, seed, keep=lambda tensor: tensor):
    """Inputs, loss and gradients for one batch."""
    batch = make_batch(entry, B, S, seed)
    loss, grads = gradients(initialize_oracle(entry), batch)
    tensors = prefixed("input.", batch)
    tensors["loss"] = loss
    tensors |= prefixed("grad.", {name: keep(grad) for name, grad in grads.items()})
    if entry.dtype != torch.float32 or entry.build_oracle:
        tensors |= lower_precision_error(initialize(entry), batch, grads)
    return tensors


def bf16_reference(entry):
    """The same batch as batch_reference's, on the fp32 weights rounded to bf16."""
    batch = make_batch(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=7)
    _, grads = gradients(initialize_oracle(entry), batch)
    return lower_precision_error(initialize(entry).bfloat16(), batch, grads)


def is_well_defined(grad, largest):
    """Elements that rounding moves by little of their own size, or that no token touched at all.

    `largest` is the largest entry of any gradient of the model.
    """
    floor = torch.maximum(1e-3 * grad.abs().max(), 1e-6 * largest)
    return (grad.abs() > floor) | (grad == 0)


def train(entry, batches, make_optimizer):
    """Losses, gradient norms before clipping, final weights, and which elements are well defined.

    Adam divides by the gradient's own size, so where a gradient is little more than rounding noise
    the update is noise too. `stable` marks the elements that never were (see is_well_defined).
    """
    module = initialize_oracle(entry)
    optimizer = make_optimizer(module.parameters())
    stable = {name: torch.ones_like(p, dtype=torch.bool) for name, p in module.named_parameters()}
    losses, norms = [], []
    for batch in batches:
        loss, grads = gradients(module, batch)
        largest = max(grad.abs().max() for grad in grads.values())
        for name, grad in grads.items():
            stable[name] &= is_well_defined(grad, largest)
        losses.append(loss)
        norms.append(torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM))
        optimizer.step()
    weights = {name: sample(p.detach()) for name, p in module.named_parameters()}
    stable = {name: sample(mask).to(torch.uint8) for name, mask in stable.items()}
    return torch.stack(losses), torch.stack(norms), weights, stable


def train_reference(entry):
    """Three steps of SGD and, from the same start, three of AdamW."""
    batches = [
        make_batch(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=100 + step)
        for step in range(NUM_STEPS)
    ]
    tensors = {}
    for step, batch in enumerate(batches):
        tensors |= prefixed(f"step{step}.input.", batch)
    optimizers = {
        "sgd": lambda parameters: torch.optim.SGD(parameters, **SGD),
        "adamw": lambda parameters: torch.optim.AdamW(parameters, **ADAMW),
    }
    for kind, make_optimizer in optimizers.items():
        losses, norms, weights, stable = train(entry, batches, make_optimizer)
        tensors |= {f"{kind}.loss": losses, f"{kind}.grad_norm": norms}
        tensors |= prefixed(f"{kind}.weight.", weights)
        if kind == "adamw":
            tensors |= prefixed("adamw.stable.", stable)
    return tensors


def write(tensors, path, metadata=None):
    save_file(tensors, path, metadata)
    path.chmod(0o644)  # The library creates files that only their owner may read.


def write_references(entry: ZooModel, folder: Path) -> None:
    # One key only: the library writes several in no fixed order.
    stride = {"sample_stride": str(SAMPLE_STRIDE)}
    if "batch" in entry.references:
        keep = sample if entry.is_brief else (lambda tensor: tensor)
        tensors = batch_reference(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=7, keep=keep)
        write(tensors, folder / "reference.safetensors", stride if entry.is_brief else None)
    if "bf16" in entry.references:
        write(bf16_reference(entry), folder / "reference_bf16.safetensors")
    if "other_shape" in entry.references:
        tensors = batch_reference(entry, B=1, S=64, seed=8, keep=sample)
        write(tensors, folder / "reference_b1_s64.safetensors", stride)
    if "odd_length" in entry.references:
        tensors = batch_reference(entry, B=2, S=29, seed=9, keep=sample)
        write(tensors, folder / "reference_b2_s29.safetensors", stride)
    if "train" in entry.references:
        write(train_reference(entry), folder / "reference_train.safetensors", stride)
