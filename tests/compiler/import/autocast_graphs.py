"""Graphs in which autocast casts within ops, for export_cases.py."""

import torch
import torch.nn.functional as F
from torch import nn


class AutocastParts(nn.Module):
    """Ops that autocast has no policy for, and that are made of ops that it casts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))
        self.gru, self.lstm = nn.GRUCell(8, 8), nn.LSTMCell(8, 8, bias=False)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.einsum("bi,ij->bj", x, self.weight)
            z = torch.einsum("bi,bi->bi", y, x)  # a product of elements, in float32
            z = torch.tensordot(z, self.weight, 1)
            z = z @ torch.linalg.multi_dot([self.weight, self.weight, x.T])
            h, c = self.lstm(y, (x, x))
            h = F.pad(self.gru(y, h), (2, 2)) + F.pad(y, (2, 2), mode="reflect")
        return z.mean() + h.mean() + c.mean()


class RefusedAutocast(nn.Module):
    """Powers of matrices are products, or inverses, which are computed in float32."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ torch.linalg.matrix_power(self.weight, -2)).float().sum()


X = torch.linspace(-1, 1, 48).reshape(6, 8)
CASES = {
    "autocast_parts": (AutocastParts, (X,), {}),
    "refused_autocast": (RefusedAutocast, (X[:, :4],), {}),
}
