"""Cases of modules whose forward writes to buffers: averages, statistics, counters, codebooks.

What PyTorch leaves in the buffers that it writes is part of the reference.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import Block, H, IGNORE_INDEX, case, token_loss


@case("ids", "labels")
class NamesOfScalars(Block):
    """A counter and a parameter that are called as numbers of a training step are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("step", torch.tensor(3))
        self.learning_rate = nn.Parameter(torch.linspace(0.5, 1, H))

    def forward(self, ids, labels):
        self.step += 1
        x = self.attend(self.embed(ids)) * self.learning_rate
        return token_loss(self.head(x / self.step), labels)


@case("ids", "labels")
class MovingAverage(Block):
    """A center that is read before it moves, and counters of steps and of tokens."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.linspace(-1, 1, H))
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("tokens", torch.tensor(40))
        self.register_buffer("average_loss", torch.tensor(2.5), persistent=False)
        self.register_buffer("weights_before", torch.zeros(H, H))

    def forward(self, ids, labels):
        self.steps += 1
        x = self.attend(self.embed(ids))
        loss = token_loss(self.head(x - self.center), labels)
        with torch.no_grad():
            self.center.mul_(0.9).add_(x.mean((0, 1)), alpha=0.1)
            self.tokens.add_((labels != IGNORE_INDEX).sum())
            self.average_loss.lerp_(loss, 0.25)
            self.weights_before.copy_(self.o.weight)
        return loss


@case("ids", "labels")
class BatchNorms(Block):
    """Norms by statistics of the batch, of channels before tokens and of tokens in rows."""

    def __init__(self):
        super().__init__()
        self.of_channels = nn.BatchNorm1d(H)
        self.of_rows = nn.BatchNorm1d(H, momentum=0.3, affine=False)
        self.of_instances = nn.InstanceNorm1d(H, affine=True, track_running_stats=True)
        self.frozen = nn.BatchNorm1d(H).eval()
        with torch.no_grad():
            self.frozen.running_mean.copy_(torch.linspace(-1, 1, H))
            self.frozen.running_var.copy_(torch.linspace(0.5, 2, H))
            self.of_channels.weight.copy_(torch.linspace(0.5, 1.5, H))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        x = x + self.of_channels(x.transpose(1, 2)).transpose(1, 2)
        x = self.of_rows(x.flatten(0, 1)).view_as(x) + x
        x = self.frozen(x.transpose(1, 2))
        x = (self.of_instances(x) + x).transpose(1, 2)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class RouterBias(Block):
    """Experts are chosen by scores and a bias that follows their load, as DeepSeek-V3 has it."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(H, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, H, H) * 0.3)
        self.register_buffer("bias", torch.tensor([0.1, -0.1, 0.0, 0.05]))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        scores = self.router(x).sigmoid()
        index = (scores + self.bias).topk(2, -1).indices
        chosen = torch.zeros_like(scores).scatter(-1, index, 1.0)
        gate = scores * chosen
        x = x + torch.einsum("bsh,ehf,bse->bsf", x, self.up, gate)
        with torch.no_grad():
            load = chosen.sum((0, 1))
            self.bias += 0.01 * torch.sign(load.mean() - load)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class Codebook(Block):
    """Vectors that follow the mean of what is nearest to them, as those of a VQ-VAE."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.randn(6, H))
        self.register_buffer("sizes", torch.ones(6))
        self.register_buffer("sums", torch.randn(6, H))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        with torch.no_grad():
            distances = (x[..., None, :] - self.codes).square().sum(-1)
            nearest = distances.argmin(-1)
            rows = F.one_hot(nearest, 6).to(x.dtype).flatten(0, 1)
        quantized = F.embedding(nearest, self.codes)
        with torch.no_grad():
            self.sizes.mul_(0.9).add_(rows.sum(0), alpha=0.1)
            self.sums.mul_(0.9).add_(rows.T @ x.flatten(0, 1), alpha=0.1)
            total = self.sizes.sum()
            sizes = (self.sizes + 1e-3) / (total + 6e-3) * total
            self.codes.copy_(self.sums / sizes[:, None])
        commitment = (x - quantized.detach()).square().mean()
        x = x + (quantized - x).detach()
        return token_loss(self.head(x), labels) + 0.1 * commitment


@case("ids", "labels")
class BufferViews(Block):
    """Writes through views, buffers that take each other's values, and a flag."""

    def __init__(self):
        super().__init__()
        self.register_buffer("history", torch.linspace(0, 1, 3 * H).view(3, H))
        self.register_buffer("now", torch.linspace(-1, 1, H))
        self.register_buffer("before", torch.linspace(1, 2, H))
        self.register_buffer("is_started", torch.tensor(False))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        x = x * (1 + 0.1 * self.history.mean(0)) + self.before
        with torch.no_grad():
            mean = x.mean((0, 1))
            before, now = self.before.clone(), self.now.clone()
            self.before.copy_(now)
            self.now.copy_(before)
            self.history[1:] = self.history[:2].clone()
            self.history[0] = mean
            self.history[2, :4] *= 0.5
            self.is_started.fill_(True)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class RunningNormalizer(Block):
    """Hidden states by running moments that are brought up to date first, and read again."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(H))
        self.register_buffer("variance", torch.ones(H))
        self.register_buffer("count", torch.tensor(8.0))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        with torch.no_grad():
            rows = x.flatten(0, 1)
            number = rows.shape[0]
            total = self.count + number
            delta = rows.mean(0) - self.mean
            moments = self.variance * self.count + rows.var(0, correction=0) * number
            moments = moments + delta.square() * self.count * number / total
            self.mean.add_(delta * number / total)
            self.variance.copy_(moments / total)
            self.count.copy_(total)
        x = (x - self.mean) * torch.rsqrt(self.variance + 1e-3)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class SpectralNorms(Block):
    """Weights over their largest singular value, whose vectors are written where they lie."""

    def __init__(self):
        super().__init__()
        self.o = nn.utils.parametrizations.spectral_norm(self.o)
        self.v = nn.utils.spectral_norm(self.v, n_power_iterations=2)  # the form before PyTorch 1.9
        self.head = nn.utils.parametrizations.weight_norm(self.head)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels)
