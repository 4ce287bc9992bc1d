"""Exports modules of which torch.export leaves something out (lost_gradients_test.cc).

    ../../../.deps/pyenv/bin/python export_lost_gradients.py [FOLDER]

writes FOLDER/<case>.pt2 (default: the folder `archives` beside this file). Other than in
export_cases.py all frames of a trace are kept, as they tell of what is left out; of paths, what is
behind the folder of packages, or the file name.
"""

import re
import sys
from pathlib import Path

import torch
from torch import nn

import export_cases


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.scale * grad, None


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


twice = Twice.apply


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(Reverse.apply(x, 0.5))


class Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(x).abs()


class Functions(nn.Module):
    """Functions by their class and by another name, twice at one place, on what has no gradient."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4))
        self.branches = nn.ModuleList([Branch(), Branch()])
        self.apply(lambda module: module)

    def forward(self, x):
        y = self.first(Twice.apply(x))
        z = twice(y)
        return sum(branch(y) for branch in self.branches).sum() + z.sum()


class Switches(nn.Module):
    """torch.no_grad inside of torch.autocast, and a buffer that is written there."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = self.one(x)
            with torch.no_grad():
                scale = self.scale + self.mean
            y = y * scale
            with torch.no_grad():
                target = self.other(y)
                self.mean.mul_(0.9).add_(target.float().mean(0))
            return ((y - target).float() ** 2).sum()


class Outside(Switches):
    """The same as PyTorch keeps it, and two blocks of autocast that are alike."""

    def forward(self, x):
        for _ in range(2):
            x = self.half(x)
        with torch.no_grad():
            with torch.autocast("cpu", torch.bfloat16):
                target = self.other(x)
                self.mean.mul_(0.9).add_(target.float().mean(0))
        return ((x - target).float() ** 2).sum()

    def half(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.one(x)


CASES = {
    "lost_functions": (Functions, False),
    "lost_functions_strict": (Functions, True),
    "lost_switches": (Switches, False),
    "lost_switches_strict": (Switches, True),
    "kept_switches": (Outside, False),
}


def shorten_traces(value):
    if isinstance(value, dict):
        return {key: re.sub(r'File "(?:[^"\n]*/site-packages/|[^"\n]*/(?=[^"/\n]*", line))',
                            'File "', item)
                if key == "stack_trace" else shorten_traces(item) for key, item in value.items()}
    return [shorten_traces(item) for item in value] if isinstance(value, list) else value


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "archives")
    export_cases.shorten_traces = shorten_traces
    for name, (module_class, strict) in CASES.items():
        module = export_cases.make_module(module_class)
        program = torch.export.export(module, (export_cases.batch_of(3, 4),), strict=strict)
        source = folder / f"{name}.whole.pt2"
        torch.export.save(program, source)
        export_cases.rewrite(source, folder / f"{name}.pt2")
        source.unlink()
        print(name)


if __name__ == "__main__":
    main()
