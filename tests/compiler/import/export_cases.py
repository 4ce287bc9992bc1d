"""Exports the small modules that the importer's tests read, each about one question.

    ../../../.deps/pyenv/bin/python export_cases.py [FOLDER]

writes FOLDER/<case>.pt2 (default: the folder `archives` beside this file). Stack traces are cut to
one file name and line, so that the archives do not depend on where they were made.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "zoo"))
import autocast_graphs  # noqa: E402
import fourier_graphs  # noqa: E402
import out_graphs  # noqa: E402
from archive import WRITER_RECORDS, read_records  # noqa: E402

S = torch.export.Dim.AUTO


class WritesToFresh(nn.Module):
    """Residual add_, mul_ and masked_fill_ on results of other ops."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, mask):
        y = self.linear(x)
        y.add_(x).mul_(2)
        y.masked_fill_(mask, 0.5)
        y += 1
        return y.square().mean()


class WritesThroughViews(nn.Module):
    """Writes to slices and selects reach the tensor, and the other views of it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x):
        y = x * self.weight
        other = y.transpose(0, 1)
        y[:, 0] = 0
        y[:, 1:3].mul_(3)
        y[1].copy_(x[0])
        y.view(-1, 2)[:, 1].add_(1)
        y.unsqueeze(0)[:, :, 4:] *= 2
        y[0, 5] = x[0, 0]
        return (y * other.transpose(0, 1)).sum() + other[2].sum()


class WritesToReshaped(nn.Module):
    """What may be a copy is written to, and nothing that it may share memory with is used again."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        z = y.t().reshape(-1)
        z += 1
        z[:8].mul_(2)
        return z.square().mean()


class Draws(nn.Module):
    """Random numbers of each distribution that is known; compared with a number, or twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = self.linear(x) + torch.rand(3, 4) * torch.randn_like(x)
        y = y * torch.empty_like(x).uniform_(-1, 3) + torch.empty(3, 1).normal_(2, 0.5)
        y = y - torch.empty(4).exponential_(0.5) + torch.randint(-2, 5, (3, 4))
        y = y * torch.bernoulli(x.sigmoid()) + torch.normal(0.0, 2.0, (3, 4))
        once, twice = torch.rand(3, 1), torch.rand(3, 1)
        y = y * (once < 0.25) + torch.where(twice < 0.5, y, 1 - y) * (twice > 0.2)
        kept = F.dropout1d(y[None], 0.5, training=False)[0]
        return F.dropout2d(kept[None, :, :, None], 0.5).mean()


class ReshapesInPlace(nn.Module):
    """Ops that change the shape of a tensor, which later uses of it see, and other views do not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x):
        y = x * self.weight
        y[0] = 1
        row = y[1]
        y.unsqueeze_(1).transpose_(0, 2)
        row.unsqueeze_(0)
        z = (x + 1).t_()
        return (y.squeeze_(1) * z).sum() + (row * x).sum()


class WritesMask(nn.Module):
    """A mask built by filling, as attention code does, in integers and floats."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        n = x.shape[1]
        mask = torch.full((n, n), float("-inf"))
        mask.triu_(1)
        mask[:, 0].fill_(0)
        keep = torch.zeros(n, dtype=torch.long)
        keep[1] = 3
        keep.add_(keep)
        keep[2:].copy_(x[0, 2:])
        positions = torch.zeros(n).copy_(keep)
        positions.index_put_((torch.tensor([0, 1]),), torch.tensor([7.0, 8.0]))
        low = torch.zeros(n, dtype=torch.bfloat16)
        low.add_(x[1])
        return (mask.exp() @ x.T * self.weight).sum() + positions.sum() + low.sum()


class NoGrad(nn.Module):
    """Under no_grad an alias stops the gradient, a conversion to the same type does not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, 4))

    def forward(self, x):
        y = x * self.weight
        with torch.no_grad():
            stopped = y * 2
            same = y.to(torch.float32)
            copy = y.clone()
        z = y.detach() + stopped + same + copy
        with torch.no_grad():
            scale = x.mean()
            with torch.enable_grad():
                inner = y * scale
        return (z * y + inner).sum()


class Autocast(nn.Module):
    """Casts of operands, casts back to float32, promotion in cat, and a nested region without."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8, bias=False)

    def forward(self, x, target):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.up(x)
            h = F.gelu(h)
            with torch.autocast("cpu", enabled=False):
                h = h.float() * 2
            y = self.down(h)
            xy = torch.cat([y, x], dim=-1)
            scores = torch.matmul(y, y.transpose(-1, -2))
            z = torch.addmm(torch.zeros(16), xy.reshape(-1, 16), self.up.weight @ self.up.weight.T)
            n = self.up.weight[:8, :8]
            loss = F.cross_entropy(y.reshape(-1, 8), target.reshape(-1))
        return loss + scores.mean() + z.mean() + (y @ n.to(y.dtype)).mean()


class Symbols(nn.Module):
    """Sizes from sums, products, floor division, remainders, maxima of the length."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0, 1, 4))

    def forward(self, x):
        n = x.shape[1]
        y = torch.cat([x, x[:, 1:], x.repeat_interleave(2, dim=1)], dim=1) * self.weight
        widest = torch.zeros(torch.sym_max(n, 6)) + torch.ones(1)
        blocks = torch.ones((n + 3) // 4, 2 * n + 1 - n % 3)
        scaled = y.sum() / n + blocks.mean()
        return scaled + widest.sum() + torch.arange(n * (n + 1) // 2).sum()


class Outputs(nn.Module):
    """Results in a dictionary, lists of results, results that are not used."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("steps", torch.arange(6.0))
        self.register_buffer("scratch", torch.ones(2), persistent=False)

    def forward(self, x):
        q, k, v = self.linear(x).split(2, dim=-1)
        a, b = torch.chunk(q * k, 2, dim=1)
        values, indices = torch.topk(v, 1, dim=-1)
        first, *rest = torch.unbind(v, dim=-1)
        low = torch.std_mean(x, dim=-1)[1]
        constant = torch.tensor([2.0, 3.0])
        loss = a.sum() + b.mean() + values.sum() + first.mean() + (low * self.steps[1]).sum()
        return {"loss": loss + (constant * 2).sum(), "logits": v, "parts": (a, indices)}


class Tied(nn.Module):
    """One weight under two names, a frozen parameter, and a slice of a larger storage."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 4)
        self.head = nn.Linear(4, 12, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, ids):
        return F.cross_entropy(self.head(self.embedding(ids) * self.frozen).flatten(0, 1),
                               ids.flatten())


class Noise(nn.Module):
    """What an import removes: dropout that drops nothing, conversions to the same type, clones."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        unused = x * 3
        y = F.dropout(self.linear(x), 0.0, True)
        y = F.dropout(y, 0.5, False).to(torch.float32).clone()
        y = y.to("cpu").to(x).type_as(x)
        return y.to(torch.float64).sum().to(torch.float32)


class ResidualDropout(nn.Module):
    """Dropout that drops nothing returns its input itself, so a write reaches the input."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = self.linear(x)
        F.dropout(y, 0.0, True).add_(x)
        return (y * x).sum()


class WholeBlocks(nn.Module):
    """No size is the symbol itself, of which the length is a multiple."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (x * self.weight).sum()


# Refused, each for one reason.


class WithWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("count", torch.zeros(4))


class WritesBuffers(WithWeight):
    """In place, through a view, by a copy, and by norms whose schemas do not say so."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(2, 4))
        self.register_buffer("unchanged", torch.ones(4))
        self.batch_norm = nn.BatchNorm1d(4, momentum=0.25)
        self.instance_norm = nn.InstanceNorm1d(3, track_running_stats=True)

    def forward(self, x):
        self.count += 1
        before = self.rows[1] * self.unchanged
        with torch.no_grad():
            self.rows[0].copy_(x.mean(0))
            self.rows.mul_(0.5)
        y = self.batch_norm(x * self.weight) + before + self.rows[0]
        return (self.instance_norm(y.unsqueeze(0)) + self.count).square().sum()


class WritesFunctionally(WritesBuffers):
    functional = True  # what export calls mutations of buffers


class RefusedConstantWrite(WithWeight):
    def __init__(self):
        super().__init__()
        self.total = torch.zeros(4)

    def forward(self, x):
        self.total.add_(1)
        return (x * self.weight + self.total).sum()


class RefusedSharedBuffer(WithWeight):
    """A buffer that shows a part of another, which PyTorch would write too."""

    def __init__(self):
        super().__init__()
        rows = torch.zeros(3, 4)
        self.register_buffer("rows", rows)
        self.register_buffer("first", rows[0])

    def forward(self, x):
        self.rows.add_(1)
        return (x * self.weight + self.first).sum()


class RefusedBufferShape(WithWeight):
    def forward(self, x):
        self.count.unsqueeze_(0)
        return (x * self.weight + self.count).sum()


class RefusedInputWrite(WithWeight):
    def forward(self, x):
        x[0].mul_(2)
        return (x * self.weight).sum()


class RefusedParameterWrite(WithWeight):
    def forward(self, x):
        with torch.no_grad():
            self.weight.mul_(0.5)
        return (x * self.weight).sum()


class RefusedReshapeWrite(WithWeight):
    def forward(self, x):
        y = x * self.weight
        y.t().reshape(-1).add_(1)
        return y.sum()


class RefusedWriteAfterReshape(WithWeight):
    def forward(self, x):
        y = x * self.weight
        row = y[0]
        y.unsqueeze_(1)
        row.add_(1)
        return y.sum()


class RefusedReshapeOfTwoNames(WithWeight):
    def forward(self, x):
        y = x * self.weight
        same = y.to(torch.float32)
        y.unsqueeze_(1)
        return y.sum() + same.sum()


class RefusedNewStrides(WithWeight):
    def forward(self, x):
        return (x * self.weight).as_strided_((2, 3), (1, 2)).sum()


class RefusedNoGradWrite(WithWeight):
    def forward(self, x):
        y = x * self.weight
        with torch.no_grad():
            y.mul_(2)
        return y.sum()


class RefusedNonzero(WithWeight):
    def forward(self, x):
        return (x * self.weight)[x > 0].sum()


class RefusedItem(WithWeight):
    def forward(self, x):
        n = x[0, 0].to(torch.int64).item()
        torch._check(n >= 2)
        torch._check(n <= 3)
        return (x * self.weight)[:n].sum()


class RefusedRandom(WithWeight):
    def forward(self, x):
        return (x * self.weight * torch.multinomial(x.abs(), 2)[:, :1]).sum()


class RefusedWideIntegers(WithWeight):
    def forward(self, x):
        return (x * self.weight + torch.randint(2**40, x.shape)).sum()


class RefusedComplex(WithWeight):
    def forward(self, x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 2)).tan()).sum()


class RefusedBranch(WithWeight):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: v.sin(), lambda v: v.cos(),
                          (x * self.weight,)).sum()


class RefusedRecurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(4, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x[None])[0].square().sum()


@torch.library.custom_op("autosp_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x):
    return torch.empty_like(x)


class RefusedCustomOp(WithWeight):
    def forward(self, x):
        return torch.ops.autosp_test.twice(x * self.weight).sum()


def batch_of(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator) * 2 - 1


class ComplexNumbers(nn.Module):
    """Each form of op on complex tensors, and a buffer of them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("factors", torch.complex(torch.ones(3, 2), torch.arange(2.0)))

    def forward(self, x):
        z = torch.view_as_complex((x * self.weight).reshape(x.shape[0], 2, 2))
        y = torch.polar(z.real.abs(), z.imag)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.complex(y.imag, y.real).conj() - y
        y = torch.stack([y, z * self.factors[0]], -2).flatten(-2) * x / x[:, :1]
        y = torch.cat(y.unsqueeze(0).chunk(2, -1), 1).transpose(-1, 0)[..., 0]
        y = y.reshape(2, -1, 1).expand(2, -1, 3).permute(-1, 0, 1).sum(-1) * 2
        return torch.view_as_real(-y.to(torch.complex64)).square().sum()


class RefusedComplexSum(WithWeight):
    def forward(self, x):
        z = torch.view_as_complex(x.reshape(x.shape[0], 2, 2))
        return torch.view_as_real(z[:, :1] + x[:, :2]).sum()


class RefusedComplexInput(WithWeight):
    def forward(self, x):
        return torch.view_as_real(x).sum()


class RefusedComplexParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.complex64))

    def forward(self, x):
        return torch.view_as_real(self.weight * x).sum()


class RefusedSharedStorage(nn.Module):
    """Two parameters of one memory, which PyTorch trains apart."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.linspace(-1, 1, 4))
        self.second = nn.Parameter(self.first.data)

    def forward(self, x):
        return ((x * self.first).tanh() * self.second).sum()


# name: (module, arguments, dynamic shapes by argument name)
class RefusedFakeQuantize(WithWeight):
    def forward(self, x):
        weight = torch.fake_quantize_per_tensor_affine(self.weight, 0.1, 0, -128, 127)
        return (x * weight).square().sum()


CASES = {
    "writes_to_fresh": (WritesToFresh, (batch_of(6, 8), batch_of(6, 8) > 0.3), {}),
    "writes_through_views": (WritesThroughViews, (batch_of(6, 8),), {}),
    "writes_to_reshaped": (WritesToReshaped, (batch_of(6, 8),), {}),
    "draws": (Draws, (batch_of(3, 4),), {}),
    "reshapes_in_place": (ReshapesInPlace, (batch_of(6, 8),), {}),
    "writes_mask": (WritesMask, (batch_of(5, 6),), {}),
    "complex_numbers": (ComplexNumbers, (batch_of(3, 4),), {}),
    "no_grad": (NoGrad, (batch_of(3, 4),), {}),
    "autocast": (Autocast, (batch_of(2, 6, 8), torch.arange(12).reshape(2, 6) % 8), {}),
    "symbols": (Symbols, (batch_of(2, 10, 4),), {"x": {1: S}}),
    "whole_blocks": (WholeBlocks, (batch_of(2, 8, 4),), {"x": {1: 4 * torch.export.Dim("n")}}),
    "outputs": (Outputs, (batch_of(2, 4, 6),), {}),
    "tied": (Tied, (torch.arange(6).reshape(2, 3),), {}),
    "noise": (Noise, (batch_of(3, 4),), {}),
    "residual_dropout": (ResidualDropout, (batch_of(3, 4),), {}),
    "writes_buffers": (WritesBuffers, (batch_of(3, 4),), {}),
    "writes_functionally": (WritesFunctionally, (batch_of(3, 4),), {}),
    "refused_constant_write": (RefusedConstantWrite, (batch_of(3, 4),), {}),
    "refused_buffer_shape": (RefusedBufferShape, (batch_of(3, 4),), {}),
    "refused_shared_buffer": (RefusedSharedBuffer, (batch_of(3, 4),), {}),
    "refused_input_write": (RefusedInputWrite, (batch_of(3, 4),), {}),
    "refused_parameter_write": (RefusedParameterWrite, (batch_of(3, 4),), {}),
    "refused_reshape_write": (RefusedReshapeWrite, (batch_of(3, 4),), {}),
    "refused_write_after_reshape": (RefusedWriteAfterReshape, (batch_of(3, 4),), {}),
    "refused_reshape_of_two_names": (RefusedReshapeOfTwoNames, (batch_of(3, 4),), {}),
    "refused_new_strides": (RefusedNewStrides, (batch_of(3, 4),), {}),
    "refused_no_grad_write": (RefusedNoGradWrite, (batch_of(3, 4),), {}),
    "refused_nonzero": (RefusedNonzero, (batch_of(3, 4),), {}),
    "refused_item": (RefusedItem, (batch_of(3, 4).abs() + 2,), {}),
    "refused_random": (RefusedRandom, (batch_of(3, 4),), {}),
    "refused_wide_integers": (RefusedWideIntegers, (batch_of(3, 4),), {}),
    "refused_complex": (RefusedComplex, (batch_of(3, 4),), {}),
    "refused_complex_input": (RefusedComplexInput, (batch_of(3, 4).to(torch.complex64),), {}),
    "refused_complex_parameter": (RefusedComplexParameter, (batch_of(3, 4),), {}),
    "refused_complex_sum": (RefusedComplexSum, (batch_of(3, 4),), {}),
    "refused_branch": (RefusedBranch, (batch_of(3, 4),), {}),
    **autocast_graphs.CASES,
    **fourier_graphs.CASES,
    **out_graphs.CASES,
    "refused_fake_quantize": (RefusedFakeQuantize, (batch_of(3, 4),), {}),
    "refused_recurrent": (RefusedRecurrent, (batch_of(3, 4),), {}),
    "refused_shared_storage": (RefusedSharedStorage, (batch_of(3, 4),), {}),
    "refused_custom_op": (RefusedCustomOp, (batch_of(3, 4),), {}),
}


def make_module(module_class):
    torch.manual_seed(0)
    return module_class().train()


def shorten_traces(value):
    """Keeps the innermost frame of every stack trace, and of its path the file name."""
    if isinstance(value, dict):
        return {key: re.sub(r'(?s).*(File ")[^"\n]*/(?=[^"/\n]*", line)', r"\1", item)
                if key == "stack_trace" else shorten_traces(item) for key, item in value.items()}
    return [shorten_traces(item) for item in value] if isinstance(value, list) else value


def rewrite(source: Path, target: Path):
    target.unlink(missing_ok=True)
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, data in read_records(source).items():
        if name in WRITER_RECORDS:
            continue
        if name == "models/model.json":
            data = json.dumps(shorten_traces(json.loads(data))).encode()
        writer.write_record(name, data, len(data))
    writer.write_record("byteorder", b"little", len(b"little"))
    writer.write_end_of_file()


def export_case(name, target: Path):
    module_class, arguments, dynamic = CASES[name]
    module = make_module(module_class)
    program = torch.export.export(module, arguments, dynamic_shapes=dynamic or None)
    if getattr(module, "functional", False):
        program = program.run_decompositions({})
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "case.pt2"
        torch.export.save(program, source)
        rewrite(source, target)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "archives")
    folder.mkdir(exist_ok=True)
    for name in CASES:
        export_case(name, folder / f"{name}.pt2")
        print(name)


if __name__ == "__main__":
    main()
