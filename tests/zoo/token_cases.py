"""Cases of what mixes or counts tokens besides attention, and of sizes and parameters.

B batch, S sequence, H hidden, N heads, D head size, V vocabulary.
"""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from case_modules import (
    D, H, N, V, Block, MixtureOfExperts, TokenMse, case, heads, merge, refused, token_loss)


class Mixer(Block):
    """Embedding, `mix` over tokens, a residual, and a head; no attention."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        return token_loss(self.head(x + self.o(self.mix(x))), labels)


@case("ids", "labels")
class ShiftByOne(Mixer):
    """The token before, by cat and by pad."""

    def mix(self, x):
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return 0.5 * before + F.pad(x, (0, 0, 1, -1)) * x


@case("ids", "labels")
class Flip(Mixer):
    def mix(self, x):
        return x.flip(1)


@case("ids", "labels")
class Roll(Mixer):
    def mix(self, x):
        return torch.roll(x, 2, 1)


@case("ids", "labels")
class MaxOfTokens(Mixer):
    """A maximum over tokens, broadcast back."""

    def mix(self, x):
        return x * x.amax(1, keepdim=True) + x.max(1, keepdim=True).values


@case("ids", "labels")
class RunningMax(Mixer):
    def mix(self, x):
        return torch.cummax(x, 1).values


@case("ids", "labels")
class SortedTokens(Mixer):
    """sort and topk over the sequence."""

    def mix(self, x):
        return x.sort(1).values + x.topk(4, 1).values.mean(1, keepdim=True)


@case("ids", "labels")
class ReverseCumsum(Mixer):
    def mix(self, x):
        return x.flip(1).cumsum(1).flip(1) / 16


@case("ids", "labels")
class GatedScan(Mixer):
    """A state-space scan in closed form: decays as sums of logarithms."""

    def mix(self, x):
        decay = F.logsigmoid(self.q(x) + 3).cumsum(1)
        return decay.exp() * (self.v(x) * (-decay).exp()).cumsum(1)


@case("ids", "labels")
class HiddenByInfinity(Mixer):
    """Minus infinity behind exp, topk and scatter: decays of chunks, groups of experts, routers."""

    def mix(self, x):
        decay = self.q(x).masked_fill(torch.arange(H) < H // 2, float("-inf")).exp()
        scores = self.k(x).sigmoid()
        shown = scores > scores.mean(-1, keepdim=True)
        places = torch.topk(scores.masked_fill(~shown, float("-inf")), 2, -1).indices
        weights = scores.gather(-1, places)
        chosen = torch.full_like(scores, float("-inf")).scatter(-1, places, weights)
        return decay * self.v(x) + chosen.sigmoid()


@case("ids", "labels")
class EllipsesAndGates(Mixer):
    """Einsum with ellipses, as einops-style code has it, and a gated linear unit."""

    def mix(self, x):
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        weights = torch.einsum("... i d, ... j d -> ... i j", q, k).tril().tanh()
        mixed = merge(torch.einsum("...ij,...jd->...id", weights, v))
        return F.glu(torch.cat([mixed, x], -1), -1)


@case("ids", "labels")
class ConvOverTime(Mixer):
    """A convolution of all channels over neighbours on both sides."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(H, H, 3, padding=1)

    def mix(self, x):
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


@case("ids", "labels")
class ConvCutToLength(Mixer):
    """Depthwise, padded on both sides and cut: S + 2, then S, as state-space models do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(H, H, 3, groups=H, padding=2)

    def mix(self, x):
        return F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


@case("image", "classes")
class PatchConv(Block):
    """A vision transformer: patches of 1 x 4 by conv2d, a class token, its hidden state."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, H, (1, 4), stride=(1, 4))
        self.token = nn.Parameter(torch.randn(1, 1, H))

    def forward(self, image, classes):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.attend(x, is_causal=False)
        return F.cross_entropy(self.head(x[:, 0]), classes)


@case("ids", "labels")
class AbsentPositions(Block):
    """Positions made in the graph, from the length."""

    def __init__(self):
        super().__init__()
        self.places = nn.Embedding(32, H)

    def forward(self, ids, labels):
        x = self.embed(ids) + self.places(torch.arange(ids.shape[1]))
        return token_loss(self.head(self.attend(x)), labels)


@case("ids", "labels")
class DerivedSizes(Block):
    """[B * S, H], 2 * S, and S + 1 cut again."""

    def forward(self, ids, labels):
        B, S = ids.shape
        x = self.attend(self.embed(ids)).view(B * S, H)
        x = self.o(x).view(B, S, H)
        doubled = torch.stack([x, -0.5 * x], 2).view(B, 2 * S, H)
        x = x + doubled.view(B, S, 2, H).square().sum(2)
        longer = F.pad(x, (0, 0, 0, 1), value=1.0)
        assert longer.shape[1] == S + 1
        return token_loss(self.head(longer[:, :S]), labels)


@case("ids", "labels", shape=(4, 16))
class SizesThatCoincide(Block):
    """Exported where S is the hidden size and B the number of heads, all as constants."""

    static = True

    def forward(self, ids, labels):
        B, S = ids.shape
        x = self.embed(ids) + torch.eye(H)[0]
        q, k, v = (p(x).view(B, S, N, D).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, torch.ones(S, S).tril().bool())
        x = (x + self.o(merge(mixed))).reshape(B * S, H) @ torch.ones(H, H).triu()
        return token_loss(self.head(x).view(B, S, V), labels)


@case("ids", "labels")
class ParameterUsedTwice(Block):
    """One layer on every token and on their mean: sums over shards, and a whole."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        whole = self.o(x.mean(1, keepdim=True)) + self.o.weight.mean(0)
        return token_loss(self.head(self.o(x) * torch.tanh(whole)), labels)


@case("ids", "labels")
class Checkpointed(Block):
    """Exported with activation checkpointing on."""

    def forward(self, ids, labels):
        x = torch.utils.checkpoint.checkpoint(self.attend, self.embed(ids), use_reentrant=False)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class Prelus(Block):
    """A slope for each channel, in dimension 1, and one for all."""

    def __init__(self):
        super().__init__()
        self.slopes = nn.Parameter(torch.linspace(-0.5, 1, H))
        self.slope = nn.Parameter(torch.tensor([0.25]))

    def forward(self, ids, labels):
        x = F.prelu(self.attend(self.embed(ids)).transpose(1, 2), self.slopes).transpose(1, 2)
        return token_loss(self.head(F.prelu(x - 0.1, self.slope)), labels)


@case("ids", "labels")
class OpsWithoutRules(Block):
    """Ops that no rule knows: gathered, computed whole, sliced."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        x = x + torch.logcumsumexp(self.o(x), 1) + torch.special.ndtr(x)
        return token_loss(self.head(torch.renorm(x, 2, 1, 4.0)), labels)


@case("ids", "labels")
class InPlaceForms(Block):
    """add_, div_, copy_, masked_fill_, index_put_ on fresh values, and through views."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        y = torch.zeros_like(x)
        y.copy_(x).add_(0.5).div_(2.0)
        y.masked_fill_((ids == 3)[..., None], 0.25)
        y.view(*ids.shape, N, D)[..., 1:, :].mul_(1.5)
        y[:, :, torch.tensor([0, 3])] = y[:, :, torch.tensor([1, 2])]
        return token_loss(self.head(x + y), labels)


@case("ids", "labels")
class HeadsWrittenApart(Block):
    """y[:, :, i] = ... in a loop, as scans over chunks write: slices that leave out nothing."""

    auto = True

    def forward(self, ids, labels):
        heads = self.attend(self.embed(ids)).view(*ids.shape, N, D)
        mixed, state = torch.zeros_like(heads), torch.zeros_like(heads[:, :, 0])
        for i in range(N):
            state = state * 0.5 + heads[:, :, i]
            mixed[:, :, i] = state
        return token_loss(self.head(mixed.flatten(2)), labels)


@case("features", "ids")
class StaticRegression(TokenMse):
    """All sizes constants: broadcast_tensors in a loss."""

    static = True


@case("ids", "labels")
class StaticExperts(MixtureOfExperts):
    """All sizes constants: topk, scatter and einsum."""

    static = True


@case("ids", "labels")
class StaticDerivedSizes(DerivedSizes):
    """All sizes constants, 2 * S among them."""

    static = True


@case("ids", "labels")
class RepeatedValues(Block):
    """repeat and tile: a parameter for each token, channels in turns, key heads in turns."""

    def __init__(self):
        super().__init__(n_kv=2)
        self.start = nn.Parameter(torch.randn(1, 1, H))
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, ids, labels):
        x = self.embed(ids) + self.start.repeat(*ids.shape, 1)
        x = x * self.scale.tile((4,))
        q, k, v = heads(self.q(x)), heads(self.k(x), 2), heads(self.v(x), 2)
        k, v = k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1)
        x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return token_loss(self.head(x), labels)


@case("ids", "labels", shape=(2, 16))
class ChosenPlaces(Block):
    """Tokens by constant places, which all lengths of the tests have."""

    def forward(self, ids, labels):
        places = torch.tensor([0, 5, 12, 5])
        x = self.attend(self.embed(ids)).index_select(1, places)
        return token_loss(self.head(x), labels[:, places])


@case("ids", "labels", folder="refused", shape=(2, 24))
class PlacesPastTheEnd(Block):
    """The same with a place that the length at export had."""

    def forward(self, ids, labels):
        places = torch.tensor([0, 5, 20])
        x = self.attend(self.embed(ids)).index_select(1, places)
        return token_loss(self.head(x), labels.index_select(1, places))


@refused("ids", "labels")
class EverySecondToken(Block):
    """Keys from x[:, ::2], all sizes constants: how many follow is not known."""

    static = True

    def forward(self, ids, labels):
        x = self.embed(ids)
        y = x[:, ::2]
        q, k, v = heads(self.q(x)), heads(self.k(y)), heads(self.v(y))
        x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v)))
        return token_loss(self.head(x), labels)


@refused("ids", "classes")
class HalfOfTheTokens(Block):
    """The mean of the first half, all sizes constants."""

    static = True

    def forward(self, ids, classes):
        x = self.attend(self.embed(ids))[:, : ids.shape[1] // 2]
        return F.cross_entropy(self.head(x.mean(1)), classes)


@refused("ids", "classes")
class LastPlace(Block):
    """x[:, S - 1], all sizes constants."""

    static = True

    def forward(self, ids, classes):
        x = self.attend(self.embed(ids))[:, ids.shape[1] - 1]
        return F.cross_entropy(self.head(x), classes)


@refused("ids", "features")
class SumOverBatch(Block):
    """A sum divided by the batch size, all sizes constants."""

    static = True

    def forward(self, ids, features):
        return (self.attend(self.embed(ids)) - features).square().sum() / ids.shape[0]


@refused("ids", "labels")
class TokensAsParameters(Block):
    """A parameter for each place, as many as the exported length."""

    static = True

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(8, H))

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids) + self.places)), labels)


@case("ids", "labels")
class BlocksOfFour(Mixer):
    """Means of blocks, which count them, and sums within; a length is 4 * Dim("blocks")."""

    block = 4

    def mix(self, x):
        B, S, _ = x.shape
        blocks = x.reshape(B, S // 4, 4, H)
        place = torch.arange(S // 4, device=x.device)[:, None] / 8
        means = (blocks.mean(2) * (1 + place)).repeat_interleave(4, 1)
        return means + blocks.cumsum(2).reshape(B, S, H) * x


@case("ids", "labels")
class PaddedWindows(Mixer):
    """Windows of a sequence that was padded by a block."""

    block = 4

    def mix(self, x):
        padded = F.pad(x, (0, 0, 0, 4)).unflatten(1, (-1, 4))
        return (padded.cumsum(2) + padded.mean(2, keepdim=True)).flatten(1, 2)[:, :-4]


@case("ids", "labels")
class RowsOfTokens(Mixer):
    """As many rows at any length: means of each as landmarks, sums within, rows in the batch that
    attend to themselves, and rows with their channels; a length is 4 * Dim("blocks")."""

    block = 4

    def mix(self, x):
        B, S, _ = x.shape
        landmarks = x.unflatten(1, (4, -1)).mean(2)
        y = (self.q(x) @ landmarks.transpose(1, 2)).softmax(-1) @ landmarks
        y = y + x.view(B, 2, S // 2, H).cumsum(2).flip(1).reshape(B, S, H) / 8
        q, k, v = (heads(w(x.reshape(B * 4, S // 4, H))) for w in (self.q, self.k, self.v))
        rows = merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        all_of_rows = x.reshape(B, 4, S // 4 * H).tanh().mean((1, 2))
        return y + rows.reshape(B, S, H) + all_of_rows[:, None, None]


@case("ids", "labels")
class DividedByNorms(Mixer):
    """Divisors, roots and logarithms of computed values, which padding may have at their ends."""

    def mix(self, x):
        directions = x / x.norm(dim=-1, keepdim=True)
        q, k = F.elu(directions) + 1, F.elu(2 * directions) + 1
        linear = (q @ (k.transpose(1, 2) @ x)) / (q @ k.sum(1, keepdim=True).transpose(1, 2))
        lengths = torch.sqrt((x * x).sum(-1, keepdim=True)) * torch.rsqrt(x.abs().sum(-1, True))
        angles = torch.acos(0.9 * directions) + torch.atan2(x, x.flip(-1))
        angles = angles + torch.xlogy(x, x.abs())
        return linear + lengths * torch.log(F.softplus(x)) + 0.1 * angles + x.abs().pow(0.5)


@case("ids", "labels")
class NormsWithoutEpsilon(Mixer):
    """Rows of padding have no spread, and no length."""

    def mix(self, x):
        return F.layer_norm(x, (H,), eps=0.0) + F.rms_norm(x, (H,), eps=0.0)


@case("ids", "labels")
class HiddenWhereComputed(Mixer):
    """Scores below a computed bound are minus infinity, which rows of padding may be altogether."""

    def mix(self, x):
        chosen = x.topk(H // 2, -1)
        hidden = x.masked_fill(x < chosen.values[..., -1:], float("-inf"))
        routed = torch.full_like(x, float("-inf")).scatter(-1, chosen.indices, chosen.values)
        kept = torch.where(x > x.mean(-1, keepdim=True), x, float("-inf"))
        even = x.sort(1).values.softmax(-1)  # all the same in padding
        weights = hidden.softmax(-1) + routed.log_softmax(-1).exp()
        constant = torch.tensor(float("-inf"))
        weights = weights + torch.where(even > 1 / H + 1e-3, even, constant).softmax(-1)
        return x * weights + F.relu6(kept) + hidden.logsumexp(-1, keepdim=True)


@case("ids", "labels")
class SumsTimesTokens(Mixer):
    """Sums over tokens that multiply tokens, or are read in part; pairs of tokens."""

    def mix(self, x):
        gram = x.transpose(1, 2) @ x
        diagonal = gram.diagonal(dim1=1, dim2=2)[:, None]
        pairs = torch.einsum("bsh,bth->bh", x, x.tanh())[:, None]
        scores = torch.einsum("bsh,bth,btg->bsg", x, x.sin(), x)
        largest = x.abs().amax(1, keepdim=True)
        unit = x / x.square().sum(1, keepdim=True).sqrt()
        return (x.sum(1, keepdim=True) * x + diagonal + pairs + scores) / 64 + x / largest + unit


@case("ids", "labels")
class HalfGates(Mixer):
    """Gates in bf16 in a model of fp32: derivatives read their rounded results."""

    def mix(self, x):
        gates = torch.sigmoid(4 * x.to(torch.bfloat16)) * torch.softmax(x.to(torch.bfloat16), -1)
        return x * gates.float()


@case("ids", "labels")
class HalfSums(Mixer):
    """Sums and means over tokens in half precision, which is rounded once for all tokens.

    Under no_grad, since gradients are rounded to half precision in the order of their terms.
    """

    def mix(self, x):
        with torch.no_grad():
            half = x.to(torch.bfloat16)
            total = half.sum(1, keepdim=True) / 64 + half.abs().mean(1, keepdim=True)
            narrowed = x.sum(1, keepdim=True).to(torch.bfloat16) * 0.25
        return x * (1 + total.float() + narrowed.float())


@case("ids", "labels")
class HalfGradients(Mixer):
    """What all tokens read in bf16: its gradient is rounded where those of all are added."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(H, H)

    def mix(self, x):
        gate = torch.tanh(self.gate(x).mean(1, keepdim=True)).to(torch.bfloat16)
        return x * gate.to(x.dtype) + gate.to(x.dtype)


@case("ids", "labels")
class HalfParameters(Mixer):
    """Parameters in bf16 whose gradients cancel over tokens, but for what bf16 has no digits for.

    All numbers are exact, so that a sum that is rounded before all tokens are in it is far off.
    """

    def __init__(self):
        super().__init__()
        half = torch.bfloat16
        self.scale = torch.nn.Parameter(torch.ones(4, dtype=half))
        self.heads = torch.nn.Parameter(torch.ones(2, 1, dtype=half))
        self.bias = torch.nn.Parameter(torch.zeros(8, dtype=half))
        self.matrix = torch.nn.Parameter(torch.eye(4, dtype=half))

    def forward(self, ids, labels):
        loss = super().forward(ids, labels)
        place = torch.cumsum(torch.ones_like(ids), 1) - 1
        sign = torch.where(place < 6, 1.0, torch.where(place < 12, -1.0, 0.0))
        weight = torch.where(place % 2 == 0, sign, sign.relu() * 2**-9)[..., None]
        x = (place % 3 + 1).to(self.scale.dtype)[..., None].expand(-1, -1, 4)
        y = x * self.scale + self.bias[:4]
        y = y + (x.unflatten(-1, (2, 2)) * self.heads).flatten(-2)
        y = y + torch.lerp(x, self.bias[4:], 0.5) + x @ self.matrix.t()
        return loss + (y.float() * weight).sum() / 64

    def mix(self, x):
        return x


@case("ids", "mask", "classes")
class OneTokenOfEach(Block):
    """The last token that is no padding, and one counted from the end, as rewards are read."""

    def forward(self, ids, mask, classes):
        x = self.attend(self.embed(ids))
        rows = torch.arange(ids.shape[0])
        last = x[rows, mask.sum(1) - 1]
        scores = self.head(x)[..., 0]
        behind = scores[rows, -1 - classes % 3]
        return F.cross_entropy(self.head(last), classes) + behind.square().mean()


@case("ids", "labels")
class SpecialFunctions(Block):
    """Functions of single numbers, of which some are none at the zeros that padding holds."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        positive = F.softplus(x) + 0.5
        y = torch.lgamma(positive) - torch.digamma(positive) + torch.special.entr(positive)
        z = torch.erfinv(0.9 * torch.tanh(x)) + torch.sinc(x) + torch.special.i0e(x)
        z = z + torch.special.log_ndtr(x) + torch.special.erfcx(x.abs())
        z = z + torch.polygamma(1, positive)
        z = torch.where(torch.isfinite(z), z, 0) + torch.special.ndtri(x.sigmoid())
        return token_loss(self.head(x + 0.1 * (y + z + torch.special.i1(x).sgn())), labels)


@case("ids", "labels")
class PixelsOfTokens(Block):
    """Each token is an image of one channel, cut into windows that overlap and put together again;
    and quantiles of its numbers."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        image = F.pixel_shuffle(x.flatten(0, 1).unflatten(-1, (4, 2, 2)), 2)
        windows = F.unfold(image, 3, padding=1)
        image = F.fold(windows.tanh(), (4, 4), 3, padding=1)
        rows = F.pixel_unshuffle(image, 2).flatten(1).unflatten(0, ids.shape)
        low = torch.quantile(x, 0.3, dim=-1, keepdim=True)
        return token_loss(self.head(rows + low + x.nanquantile(0.8, -1, keepdim=True)), labels)
