"""Cases of sizes that the archive writes with the symbol of the length: S, S - 3, 2S - 1.

B batch, S sequence, H hidden, V vocabulary.
"""

import torch
import torch.nn.functional as F

from case_modules import H, SHAPES, V, Block, case, heads, merge, refused, token_loss
from token_cases import Mixer

SHAPES["distances"] = ("batch", "seq", "seq")


@case("ids", "labels")
class LongConvolution(Mixer):
    """Kernels as long as the sequence over everything so far (S4D, Hyena), in two forms."""

    def kernels(self, length):
        places = torch.arange(length)
        decay = torch.exp(-F.softplus(self.q.bias)[:, None] * places)
        return decay * torch.cos(self.v.bias[:, None] * places)

    def mix(self, x):
        length = x.shape[1]
        turned = self.kernels(length).flip(-1).unsqueeze(1)
        tokens = x.transpose(1, 2)
        padded = F.conv1d(F.pad(tokens, (length - 1, 0)), turned, groups=H)
        cut = F.conv1d(tokens.tanh(), turned, padding=length - 1, groups=H)[..., :length]
        return (padded + cut).transpose(1, 2)


@case("ids", "labels")
class LastTokens(Mixer):
    """The last three tokens and those before, counted from the front."""

    def mix(self, x):
        length = x.shape[1]
        last = x[:, length - 3 :]
        narrow = x.cumsum(1).narrow(1, length - 3, 3)
        before = x.tanh()[:, length - 3 : length - 1]
        rest = x.sin()[:, : length - 2]
        flat = self.q((last * narrow).reshape(-1, H)).unflatten(0, (-1, 3))
        return x * (flat.mean(1) + before.sum(1) + rest.sum(1) / 16)[:, None]


@case("distances", "ids", "labels")
class DistancesOfPairs(Block):
    """An input of S x S, which the job file calls other: a bias of attention, and a count."""

    def forward(self, distances, ids, labels):
        x = self.embed(ids)
        near = self.embed(distances[..., :1] % 5).mean(2)
        q, k, v = heads(self.q(x + near)), heads(self.k(x)), heads(self.v(x))
        scores = q @ k.transpose(2, 3) / 2 - distances[:, None] / 8
        weights = scores.softmax(-1)
        x = x + self.o(merge(weights @ v))
        count = (distances == 3).sum(2).clamp(max=V - 1)
        return token_loss(self.head(x + self.embed(count)), labels)


@case("ids", "labels")
class StridedWindows(Mixer):
    """Windows of three tokens that overlap in memory, as Longformer's chunks do."""

    def mix(self, x):
        B, S, _ = x.shape
        windows = x.contiguous().as_strided((B, S - 2, 3, H), (S * H, H, H, 1))
        return x + windows.amax((1, 2)).unsqueeze(1)


@case("ids", "labels")
class FractionsOfTheLength(Mixer):
    """1 / S, S / 2, (S - 1) / 2 as numbers, and places counted down in floating point."""

    auto = True

    def mix(self, x):
        S = x.shape[1]
        places = (torch.arange(S) - (S - 1) / 2.0) / S
        down = torch.arange(S - 1, -1, -1.0) * (1 / S)
        return x.cumsum(1) * (4.0 / S) + (places * down)[:, None] * (0.25 * S) + x / (S / 2.0)


@case("ids", "labels")
class RootsOfTheLength(Mixer):
    """S ** -0.5 and other powers of lengths, with sums, signs and minima of them."""

    def mix(self, x):
        B, S, _ = x.shape
        scores = x @ x.transpose(1, 2) * S**-0.5
        weights = scores.tril().softmax(-1) * (2.0 - 0.5 * (4 * S) ** 0.5)
        y = weights @ x / (B * S) ** 0.3 + x * -(torch.sym_sqrt(S) / min(S, 12))
        return y * (1 + 0.9**S) + x.cumsum(1) / S**1.5


@refused("ids", "labels")
class BranchOfTheLength(Mixer):
    """`if` asks for the length: one branch is in the archive, with a note of when."""

    auto = True

    def mix(self, x):
        return x.cumsum(1) if x.shape[1] % 16 == 8 else x


@refused("ids", "labels")
class ShareOfTheLength(Mixer):
    """int() of a share of the length, as masked autoencoders keep tokens: a number, and a note."""

    auto = True

    def mix(self, x):
        return x + x[:, : int(x.shape[1] * 0.75)].mean(1, keepdim=True)
