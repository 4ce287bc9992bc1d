"""Exports the cases: tiny modules, each with one thing that is easy to shard wrongly.

    python export_cases.py                  all of them, with PyTorch's loss and gradients
    python export_cases.py mean_pool        these only

Each was exported with batch 2 and 8 tokens, unless it says otherwise. References are of batch
4 x 16 and, for lengths that no number of ranks divides, 2 x 13. (16 is also the hidden size, and 4
the number of heads.)
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import archive
import attention_cases  # noqa: F401  These add to CASES.
import buffer_cases  # noqa: F401
import follow_cases  # noqa: F401
import fourier_cases  # noqa: F401
import length_cases  # noqa: F401
import loss_cases  # noqa: F401
import op_cases  # noqa: F401
import part_cases  # noqa: F401
import size_cases  # noqa: F401
import token_cases  # noqa: F401
from case_modules import CASES, IGNORE_INDEX, SHAPES, V

ZOO_DIR = Path(__file__).resolve().parent


def make_inputs(names, B, S, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"batch": B, "seq": S}
    batch = {}
    labels = torch.randint(0, V, (B, S), generator=generator)
    labels[0, :3] = IGNORE_INDEX
    labels[-1, S // 2 :] = IGNORE_INDEX  # several shards without a valid label
    mask = torch.ones(B, S, dtype=torch.long)
    mask[-1, S - 4 :] = 0
    ids = torch.randint(0, V, (B, S), generator=generator)
    known = {
        "ids": ids,
        "labels": labels,
        "mask": mask,
        "documents": (torch.arange(S) * torch.arange(1, B + 1)[:, None]) // 6,
        "positions": torch.arange(S) * torch.ones(B, 1, dtype=torch.long) % 6,
        "ids_sb": ids.T.contiguous(),
        "labels_sb": labels.T.contiguous(),
        "classes": torch.randint(0, V, (B,), generator=generator),
    }
    if "distances" in names:
        known["distances"] = torch.randint(0, V, (B, S, S), generator=generator)
    for name in names:
        shape = [sizes.get(size, size) for size in SHAPES[name]]
        batch[name] = known[name] if name in known else torch.randn(shape, generator=generator)
    return batch


def make_module(module_class):
    torch.manual_seed(3)
    module = module_class()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)  # a wrong mask or position shall be visible
    return module


def export(module, inputs):
    block = getattr(module, "block", None)
    seq = torch.export.Dim("seq", min=4, max=32)
    if block:  # the form that the exporter asks for
        seq = block * torch.export.Dim("blocks", max=8)
    symbols = {"batch": torch.export.Dim("batch", min=1, max=32), "seq": seq}
    shapes = {
        name: {i: symbols[size] for i, size in enumerate(SHAPES[name]) if size in symbols}
        for name in inputs
    }
    if getattr(module, "static", False):
        shapes = None
    if getattr(module, "auto", False):  # export finds out what may change, and takes notes
        shapes = {name: dict.fromkeys(dims, torch.export.Dim.AUTO) for name, dims in shapes.items()}
    return torch.export.export(module, (), inputs, dynamic_shapes=shapes)


def write_reference(module, names, B, S, path):
    batch = make_inputs(names, B, S, seed=11)
    module = copy.deepcopy(module).double()  # the forward may write to buffers
    module.zero_grad()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    exact = {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}
    torch.set_default_dtype(torch.float64)
    loss = module(**exact)
    torch.set_default_dtype(torch.float32)
    loss.backward()
    tensors = {"loss": loss.detach().float()}
    tensors |= {f"input.{name}": tensor.contiguous() for name, tensor in batch.items()}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            tensors[f"grad.{name}"] = parameter.grad.float().contiguous()
    for name, buffer in module.named_buffers():
        if not torch.equal(buffer, before[name]):
            tensors[f"buffer.{name}"] = buffer.float().contiguous()
    save_file(tensors, path)
    path.chmod(0o644)


def save(program, path):
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "model.pt2"
        torch.export.save(program, raw)
        archive.rewrite_with_relative_traces(raw, path)


def export_parts(module, known, folder):
    """Each part with the results of those before it, by the name or place of its inputs."""
    known, unnamed = dict(known), []
    for file, part, names in module.parts():
        inputs = {name: known[name] if name in known else unnamed.pop(0) for name in names}
        save(export(part, inputs), folder / f"{file}.pt2")
        results = part(**inputs)
        if isinstance(results, dict):
            known |= results
        else:
            unnamed = list(results) if isinstance(results, tuple) else [results]


def export_case(name, output_dir):
    module_class, inputs, options = CASES[name]
    folder = output_dir / options.get("folder", "cases") / name
    folder.mkdir(parents=True, exist_ok=True)
    module = make_module(module_class)
    example = make_inputs(inputs, *options.get("shape", (2, 8)), seed=5)
    if hasattr(module, "parts"):
        export_parts(module, example, folder)
    else:
        save(export(module, example), folder / "model.pt2")
    if "folder" in options:
        return
    # References are computed in fp64: they hold no rounding noise.
    write_reference(module, inputs, 4, 16, folder / "reference_b4_s16.safetensors")
    odd = 13 if getattr(module, "block", None) is None else 12
    few = getattr(module, "few", 2)
    path = folder / f"reference_b{few}_s{odd}.safetensors"
    write_reference(module, inputs, few, odd, path)


def main():
    parser = argparse.ArgumentParser(description="Exports the cases and PyTorch's numbers.")
    parser.add_argument("names", nargs="*", choices=[*sorted(CASES), []])
    parser.add_argument("--output-dir", type=Path, default=ZOO_DIR)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.names or CASES:
        try:
            export_case(name, arguments.output_dir)
        except Exception as error:
            raise SystemExit(f"{name}: {type(error).__name__}: {str(error)[:2000]}")


if __name__ == "__main__":
    main()
