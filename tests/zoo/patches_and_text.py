"""A multimodal decoder: image patches and text in one causal sequence.

The patches come first, projected to the hidden size, then the embedded text. The loss counts text
alone. (Hugging Face's own scatter the patches to places that hold a special token; this is what
that gives for one image at the start.)

B batch, P patches, S text tokens, D hidden, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional as F

PATCH_FEATURES = 12
NUM_PATCHES = 8


class Layer(nn.Module):
    def __init__(self, hidden_size, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.up = nn.Linear(hidden_size, 2 * hidden_size)
        self.down = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, x):
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.up(self.mlp_norm(x))))


class PatchesAndText(nn.Module):
    def __init__(self, vocab_size, hidden_size, num_heads, num_layers):
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(PATCH_FEATURES, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.patch_positions = nn.Parameter(torch.randn(1, NUM_PATCHES, hidden_size))
        self.layers = nn.ModuleList(Layer(hidden_size, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, vocab_size, bias=False)

    def forward(self, patches, input_ids, labels):
        """The mean loss of the next text tokens; `labels` [B, S] are the tokens themselves."""
        images = self.projector(patches) + self.patch_positions
        x = torch.cat([images, self.embedding(input_ids)], dim=1)
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x[:, patches.shape[1] :]))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
