"""Exports the zoo: small models with random weights, as stock PyTorch writes them.

    python export_models.py                      all archives and references that are checked in
    python export_models.py llama bert           these only
    python export_models.py --output-dir=DIR llama_bench

The archive is what torch.export.save writes, except that stack traces lose the folders of the
machine (archive.py). Each archive is loaded again and run before it is kept.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import archive
from models import ZOO
from references import make_batch, write_references
from zoo_model import EXPORT_BATCH, EXPORT_SEQ_LEN, ZooModel, dynamic_shapes, initialize

ZOO_DIR = Path(__file__).resolve().parent


def replace_parameters_with_fakes(module: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Drops the parameters' data. Buffers stay real: constants belong to the graph."""
    fakes = {}
    with mode:
        for submodule in module.modules():
            for name, parameter in submodule._parameters.items():
                if parameter is None:
                    continue
                fake = torch.nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype))
                submodule._parameters[name] = fakes.setdefault(parameter, fake)


def export(entry: ZooModel) -> torch.export.ExportedProgram:
    module = initialize(entry)
    inputs = make_batch(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=0)
    if not entry.is_graph_only:
        return torch.export.export(module, (), inputs, dynamic_shapes=dynamic_shapes(entry))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    replace_parameters_with_fakes(module, mode)
    with mode:
        fake_inputs = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        return torch.export.export(module, (), fake_inputs, dynamic_shapes=dynamic_shapes(entry))


def check_archive(entry: ZooModel, path: Path) -> None:
    """Loads the archive again: it must give the loss of the module it was made from."""
    batch = make_batch(entry, EXPORT_BATCH, EXPORT_SEQ_LEN, seed=7)
    losses = []
    for module in (torch.export.load(path).module(), initialize(entry)):
        torch.manual_seed(0)  # For the model with dropout.
        losses.append(module(**batch))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def export_entry(entry: ZooModel, output_dir: Path) -> None:
    folder = output_dir / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "model.pt2"
        torch.export.save(export(entry), raw)
        archive.rewrite_with_relative_traces(raw, folder / "model.pt2", entry.is_brief)
    if not entry.is_graph_only:
        check_archive(entry, folder / "model.pt2")
    write_references(entry, folder)
    print(f"{entry.name}: {sum(file.stat().st_size for file in folder.iterdir())} bytes")


def main():
    parser = argparse.ArgumentParser(description="Exports the zoo's models and references.")
    parser.add_argument("names", nargs="*", help="models to export; all checked-in ones if none")
    parser.add_argument("--output-dir", type=Path, default=ZOO_DIR)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {entry.name for entry in ZOO}
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)  # One order of every sum, so the same bytes on every machine.
    for entry in ZOO:
        if entry.name in arguments.names or not (arguments.names or entry.is_on_demand):
            export_entry(entry, arguments.output_dir)


if __name__ == "__main__":
    main()
