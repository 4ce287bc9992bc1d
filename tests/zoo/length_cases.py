"""Modules with numbers that python computed from sizes, which the archive has as constants.

Refused: cut or looked up at such a place. Warned: a plan for other sizes keeps the number, and only
a warning says so. Equal: the number is as many as the tokens, as what it makes meets them. Exported
with batch 6 and 28 tokens, of which no size of the model is one.

B batch, S sequence, H hidden, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import H, Block, case, token_loss

SHAPE = (6, 28)


def refused(*inputs):
    return case(*inputs, folder="refused", shape=SHAPE)


def warned(*inputs):
    """A module whose plan for another batch and length computes something else."""
    return case(*inputs, folder="warned", shape=SHAPE)


class Constant(Block):
    """Attention over what `mix` makes of the tokens. All sizes are constants."""

    static = True

    def __init__(self):
        super().__init__()
        self.places = nn.Embedding(100, H)

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        return token_loss(self.head(self.mix(x, ids, *ids.shape)), labels)


class Pooled(Constant):
    """A loss of one vector for each sequence."""

    def forward(self, ids):
        x = self.attend(self.embed(ids))
        return self.loss(F.normalize(self.head(x).mean(1), dim=-1), *ids.shape)


@case("ids", "labels", shape=SHAPE)
class CountsOfTokens(Constant):
    """S in linspace, arange, hann_window, repeat_interleave, layer_norm, pooling and topk."""

    def mix(self, x, ids, B, S):
        ramp = torch.linspace(-1, 1, S) + torch.arange(0.5, S + 0.5) / 64 + torch.hann_window(S)
        row = self.places(ids[:, 0].repeat_interleave(S)).view(B, S, H)
        copies = x.mean(1, keepdim=True).repeat_interleave(S, 1)
        tokens = F.layer_norm(x.transpose(1, 2), (S,))
        pooled = F.adaptive_avg_pool1d(tokens.tanh(), S)
        ordered = x.topk(S, 1).values
        y = (tokens + pooled).transpose(1, 2) + ordered + row + copies
        return (x * ramp[:, None] + y)[:, :S]


@case("ids", "labels", shape=SHAPE)
class RowsOfAParameter(Constant):
    """Four rows of any length: there are as many as in a parameter, and the rest is -1."""

    block = 4

    def __init__(self):
        super().__init__()
        self.row = nn.Parameter(torch.randn(4, 1, H))

    def mix(self, x, ids, B, S):
        rows = x.view(B, 4, S // 4, H) * self.row
        return rows.cumsum(2).reshape(B, S, H) + x.view(B, 4, -1, H).mean(2).sum(1, keepdim=True)


@case("ids", "labels", folder="warned", shape=(6, 32))
class RowsOfTheLength(Constant):
    """Eight rows, or blocks of four tokens."""

    def mix(self, x, ids, B, S):
        return x.view(B, 8, S // 8, H).cumsum(2).reshape(B, S, H)


@refused("ids", "labels")
class PairsOfTokens(Constant):
    """The pairs of triu_indices(S, S)."""

    def mix(self, x, ids, B, S):
        rows, columns = torch.triu_indices(S, S, 1)
        return x + (x @ x.transpose(1, 2))[:, rows, columns].mean(1)[:, None, None]


@refused("ids", "labels")
class TokensOneByOne(Constant):
    """A loop over all tokens."""

    def mix(self, x, ids, B, S):
        return x + sum(token.tanh() * i for i, token in enumerate(x.unbind(1)))[:, None] / 64


@case("ids", shape=SHAPE)
class HalvesCompared(Constant):
    """x[:, :S // 2] - x[:, S // 2:], and two chunks of x: as long as one another at any length."""

    block = 4

    def forward(self, ids):
        x = self.attend(self.embed(ids))
        S = ids.shape[1]
        first, second = x.tanh().chunk(2, dim=1)
        return (x[:, : S // 2] - x[:, S // 2 :]).square().mean() + (first * second).sum(2).mean()


@refused("ids")
class SecondHalf(Constant):
    """A start that is the half of the length."""

    def forward(self, ids):
        return self.head(self.attend(self.embed(ids))[:, ids.shape[1] // 2 :]).square().mean()


@case("ids", shape=SHAPE)
class PreferredHalf(Pooled):
    """Chosen and rejected answers in the halves of a batch, as reward models have them."""

    def loss(self, pooled, B, S):
        reward = pooled[:, 0]
        return -F.logsigmoid(reward[: B // 2] - reward[B // 2 :]).mean()


@refused("ids")
class LastFourByPlace(Constant):
    """x[:, S - 4:], of which the archive has the place alone."""

    def forward(self, ids):
        x = self.attend(self.embed(ids)).cumsum(1)
        return self.head(x[:, ids.shape[1] - 4 :]).square().mean()


@refused("ids", "labels")
class NextTokenAround(Constant):
    """The next token, and the first after the last: (arange + 1) % S."""

    def mix(self, x, ids, B, S):
        return x + x[:, (torch.arange(S) + 1) % S]


@refused("ids", "labels")
class ThirdNextToken(Constant):
    """Three tokens on, and the last at the end: (arange + 3).clamp(max=S - 1)."""

    def mix(self, x, ids, B, S):
        return x + x[:, (torch.arange(S) + 3).clamp(max=S - 1)]


@refused("ids", "labels")
class RowsOfTheBatch(Constant):
    """A row of the batch for each token: pooled[ids % B]."""

    def mix(self, x, ids, B, S):
        return x + x.mean(1)[ids % B]


@warned("ids", "labels")
class BucketsOfTheBatch(Constant):
    """A table of the model that is looked up at ids % B."""

    def mix(self, x, ids, B, S):
        return x + self.places(ids % B)


@warned("ids", "labels")
class ReversedPlaces(Constant):
    def mix(self, x, ids, B, S):
        return x + self.places((S - 1) - torch.arange(S))


@warned("ids", "labels")
class CentredPlaces(Constant):
    def mix(self, x, ids, B, S):
        return x + self.places((torch.arange(S) - S // 2).abs())


@warned("ids", "labels")
class PlacesOfPairs(Constant):
    """A table of relative places: i - j + S - 1."""

    def mix(self, x, ids, B, S):
        place = torch.arange(S)
        return x + self.places(place[:, None] - place + S - 1).mean(1)


@warned("ids", "labels")
class FirstHalfOpen(Constant):
    """A prefix of S // 2 tokens."""

    def mix(self, x, ids, B, S):
        return x * (torch.arange(S) < S // 2)[None, :, None]


@warned("ids", "labels")
class LatentsAtTheEnd(Constant):
    """A mask of the last eight tokens over all, Perceiver-AR: arange(8) + S - 8."""

    def mix(self, x, ids, B, S):
        visible = torch.arange(S) <= torch.arange(8)[:, None] + S - 8
        return x + (visible.to(x.dtype) @ x).mean(1, keepdim=True)


@warned("ids", "labels")
class DecayToTheEnd(Constant):
    def mix(self, x, ids, B, S):
        decay = 0.9 ** (S - 1 - torch.arange(S))
        return x + (x * decay[:, None]).sum(1, keepdim=True)


@warned("ids", "labels")
class OverTensorOfLength(Constant):
    """A length that became a tensor."""

    def mix(self, x, ids, B, S):
        return x + x.cumsum(1) / torch.tensor(S)


@warned("ids", "labels")
class LogOfLength(Constant):
    """Scores scaled by the logarithm of the length."""

    def mix(self, x, ids, B, S):
        return x * math.log(S)


@warned("ids", "labels")
class MeanOfTheRest(Constant):
    """A sum divided by S less the number of paddings."""

    def mix(self, x, ids, B, S):
        count = S - (ids == 5).sum(1)
        return x + (x.sum(1) / count[:, None])[:, None]


@warned("ids", "labels")
class TopQuarter(Constant):
    def mix(self, x, ids, B, S):
        return x + x.topk(S // 4, 1).values.mean(1, keepdim=True)


@warned("ids")
class PairsOfTheBatch(Pooled):
    """A mean over B (B - 1) / 2 pairs."""

    def loss(self, pooled, B, S):
        return (pooled @ pooled.T).triu(1).sum() / (B * (B - 1) / 2)


@warned("ids")
class VarianceOfTheBatch(Pooled):
    def loss(self, pooled, B, S):
        return ((pooled - pooled.mean(0)).square().sum(0) / (B - 1)).mean()
