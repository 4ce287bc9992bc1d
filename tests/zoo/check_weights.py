"""Loads weights written by a training run into the original PyTorch module and computes a loss.

    python check_weights.py MODEL WEIGHTS.safetensors REFERENCE.safetensors [--inputs-prefix=input.]

WEIGHTS must hold exactly the names of the module's state dict: nothing missing, nothing unknown.
Of tied weights, one name is enough, and copies under the other names must be equal. The batch
is read from REFERENCE. Prints one line of JSON: {"loss": ..., "reference_loss": ...}.
"""

import argparse
import json
import sys

import torch
from safetensors.torch import load_file

from models import ZOO
from zoo_model import initialize_oracle


def tied_names(module: torch.nn.Module) -> dict[str, list[str]]:
    """All names of each parameter and persistent buffer, by the first of them."""
    groups = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return {names[0]: names for names in groups.values()}


def complete_tied(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict:
    """The weights with every name of a tied parameter filled in."""
    complete = dict(weights)
    for names in tied_names(module).values():
        given = [name for name in names if name in weights]
        for name in given[1:]:
            if not torch.equal(weights[name], weights[given[0]]):
                raise ValueError(f"tied weights differ: {given[0]} and {name}")
        if given:
            complete |= {name: weights[given[0]] for name in names}
    return complete


def loss_of(module: torch.nn.Module, reference: dict, prefix: str) -> float:
    batch = {
        name.removeprefix(prefix): tensor
        for name, tensor in reference.items()
        if name.startswith(prefix)
    }
    with torch.no_grad():
        return module(**batch).item()


def main():
    parser = argparse.ArgumentParser(description="Computes PyTorch's loss with given weights.")
    parser.add_argument("model", choices=[entry.name for entry in ZOO])
    parser.add_argument("weights")
    parser.add_argument("reference")
    parser.add_argument("--inputs-prefix", default="input.", help="names of the batch start so")
    arguments = parser.parse_args()

    entry = next(entry for entry in ZOO if entry.name == arguments.model)
    module = initialize_oracle(entry)
    try:
        weights = complete_tied(module, load_file(arguments.weights))
        module.load_state_dict(weights, strict=True)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"{arguments.weights}: {error}")
    reference = load_file(arguments.reference)
    loss = loss_of(module, reference, arguments.inputs_prefix)
    expected = reference["loss"].item() if "loss" in reference else None
    print(json.dumps({"loss": loss, "reference_loss": expected}))


if __name__ == "__main__":
    main()
