"""A decoder as people write it by hand: no attention kernel, no library, no notion of a cluster.

Its attention is the textbook one (q @ k^T, scale, mask, softmax, @ v), so an importer that knows
attention only as a fused op does not find it.

B batch, S sequence, N heads, H head_dim, D hidden, V vocabulary.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    def __init__(self, hidden_size, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, x, mask):
        B, S, D = x.shape
        q = self.query(x).view(B, S, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.key(x).view(B, S, self.num_heads, self.head_dim).transpose(1, 2)
        v = self.value(x).view(B, S, self.num_heads, self.head_dim).transpose(1, 2)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(self.head_dim)
        scores = scores.masked_fill(mask == 0, float("-inf"))
        attended = F.softmax(scores, dim=-1) @ v
        return self.output(attended.transpose(1, 2).contiguous().view(B, S, D))


class Block(nn.Module):
    def __init__(self, hidden_size, num_heads, intermediate_size):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = CausalSelfAttention(hidden_size, num_heads)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size),
            nn.GELU(),
            nn.Linear(intermediate_size, hidden_size),
        )

    def forward(self, x, mask):
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class PlainTransformer(nn.Module):
    def __init__(self, vocab_size, hidden_size, num_heads, num_layers, intermediate_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.blocks = nn.ModuleList(
            Block(hidden_size, num_heads, intermediate_size) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, vocab_size, bias=False)

    def position_encoding(self, S, device):
        """Sinusoidal positions, computed for the length at hand: [S, D]."""
        position = torch.arange(S, device=device).unsqueeze(1)
        frequency = torch.exp(
            torch.arange(0, self.hidden_size, 2, device=device)
            * (-math.log(10000.0) / self.hidden_size)
        )
        angle = position * frequency
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)

    def forward(self, input_ids, targets):
        """The mean loss of predicting `targets` [B, S], already shifted by the caller."""
        B, S = input_ids.shape
        x = self.embedding(input_ids) + self.position_encoding(S, input_ids.device)
        mask = torch.tril(torch.ones(S, S, device=input_ids.device))
        for block in self.blocks:
            x = block(x, mask)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, self.vocab_size), targets.view(-1))
