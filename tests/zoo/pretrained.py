"""Models of the zoo as directories of Hugging Face.

    python pretrained.py config MODEL DIR           writes the config.json of a model of the zoo
    python pretrained.py loss DIR BATCH.safetensors [--dtype auto]

The second loads the directory by AutoModelForCausalLM.from_pretrained and prints one line of JSON:
the loss of the batch, whether input and output embeddings are one, the type of the weights, and
what transformers found wrong with them.
"""

import argparse
import json

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from models import ZOO


def write_config(name: str, folder: str):
    entry = next(entry for entry in ZOO if entry.name == name)
    module = entry.build()
    config = module.config
    # The zoo's classes are made for the export; the model is that of their base.
    config.architectures = [type(module).__mro__[1].__name__]
    config.save_pretrained(folder)
    return {"architectures": config.architectures}


def loss_of_pretrained(folder: str, batch: str, dtype: str):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, local_files_only=True)
    inputs = load_file(batch)
    with torch.no_grad():
        loss = model.train()(**inputs, use_cache=False).loss.item()
    embeddings = model.get_input_embeddings().weight
    return {
        "loss": loss,
        "is_tied": model.get_output_embeddings().weight is embeddings,
        "dtype": str(model.dtype).removeprefix("torch."),
        "problems": {what: sorted(map(str, found)) for what, found in info.items() if found},
    }


def main():
    parser = argparse.ArgumentParser(description="Models of the zoo for Hugging Face.")
    commands = parser.add_subparsers(dest="command", required=True)
    config = commands.add_parser("config")
    config.add_argument("model", choices=[entry.name for entry in ZOO])
    config.add_argument("folder")
    loss = commands.add_parser("loss")
    loss.add_argument("folder")
    loss.add_argument("batch")
    loss.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    if arguments.command == "config":
        print(json.dumps(write_config(arguments.model, arguments.folder)))
    else:
        print(json.dumps(loss_of_pretrained(arguments.folder, arguments.batch, arguments.dtype)))


if __name__ == "__main__":
    main()
