"""Writes model.pt2: a small byte-level Llama with random weights, exported by stock PyTorch.

Needs torch and transformers. Nothing here knows of AutoSP: this is all that a user does.
"""

from pathlib import Path

import torch
import transformers

MAX_SEQ_LEN = 8192


class LlamaForCausalLMLoss(transformers.LlamaForCausalLM):
    """Returns the loss alone, which is then the one output of the graph."""

    def forward(self, input_ids, labels):
        return super().forward(input_ids=input_ids, labels=labels, use_cache=False).loss


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,  # Tokens are bytes.
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=MAX_SEQ_LEN,
    )
    return LlamaForCausalLMLoss(config).train()


def export() -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=1024)
    seq_len = torch.export.Dim("seq_len", min=2, max=MAX_SEQ_LEN)
    tokens = torch.zeros(2, 32, dtype=torch.long)
    return torch.export.export(
        build(),
        (),
        {"input_ids": tokens, "labels": tokens},
        dynamic_shapes={name: {0: batch, 1: seq_len} for name in ("input_ids", "labels")},
    )


if __name__ == "__main__":
    torch.export.save(export(), Path(__file__).parent / "model.pt2")
