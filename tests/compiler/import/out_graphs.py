"""Graphs of ops that are told where their result goes, for export_cases.py."""

import torch
from torch import nn


class WithWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class WritesToOut(WithWeight):
    """Where an op is told to put its result: a buffer, a view, truth values, its own operand."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(2, 4))
        self.register_buffer("is_large", torch.zeros(4, dtype=torch.bool))

    def forward(self, x):
        with torch.no_grad():
            mean = torch.mean(x, 0, out=self.rows[0])
            torch.gt(mean, 0.5, out=self.is_large)
            torch.add(self.rows, 1, alpha=2, out=self.rows)
            torch.where(self.is_large, mean, self.weight, out=self.rows[1])
        return (x * self.weight * mean + self.rows[1]).square().sum()


class RefusedOutShape(WithWeight):
    def forward(self, x):
        return (torch.sin(x, out=torch.empty(0)) * self.weight).sum()


class RefusedOutType(WithWeight):
    def forward(self, x):
        truth = torch.eq(x, 1, out=torch.zeros(3, 4))
        return (truth * self.weight).sum()


class RefusedOutResults(WithWeight):
    def forward(self, x):
        values, places = torch.empty(3, 4), torch.empty(3, 4, dtype=torch.long)
        torch.sort(x, 1, out=(values, places))
        return (values * places * self.weight).sum()


X = torch.linspace(-1, 1, 12).reshape(3, 4)
CASES = {
    "writes_to_out": (WritesToOut, (X,), {}),
    "refused_out_results": (RefusedOutResults, (X,), {}),
    "refused_out_shape": (RefusedOutShape, (X,), {}),
    "refused_out_type": (RefusedOutType, (X,), {}),
}
