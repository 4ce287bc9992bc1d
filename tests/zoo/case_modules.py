"""The cases of export_cases.py: tiny modules, each with one thing that is easy to shard wrongly.

B batch, S sequence, H hidden, N heads, D head size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

V, H, N, D = 24, 16, 4, 4
IGNORE_INDEX = -100
CONTEXT = 6

# The dimensions of every input by its name; tests/equality/cases_test.cc has the same table.
SHAPES = {
    "ids": ("batch", "seq"),
    "labels": ("batch", "seq"),
    "mask": ("batch", "seq"),
    "documents": ("batch", "seq"),
    "positions": ("batch", "seq"),
    "ids_sb": ("seq", "batch"),
    "labels_sb": ("seq", "batch"),
    "features": ("batch", "seq", H),
    "context": ("batch", CONTEXT, H),
    "image": ("batch", 3, "seq", 4),
    "classes": ("batch",),
    # Of the parts of a model: results of other parts.
    "hidden": ("batch", "seq", H),
    "hidden_sb": ("seq", "batch", H),
    "penalty": (),
    "slopes": (N,),
}

CASES = {}


def case(*inputs, **options):
    def register(module_class):
        name = "".join("_" + c.lower() if c.isupper() else c for c in module_class.__name__)
        CASES[name.lstrip("_")] = (module_class, inputs, options)
        return module_class

    return register


def refused(*inputs):
    """A module that the compiler refuses at another batch and length: there is no reference."""
    return case(*inputs, folder="refused")


def heads(x, n=N):
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Embedding, causal attention, a residual, and a head."""

    def __init__(self, n=N, n_kv=None, d=D):
        super().__init__()
        self.n, self.n_kv = n, n_kv or n
        self.embed = nn.Embedding(V, H)
        self.q = nn.Linear(H, n * d)
        self.k = nn.Linear(H, self.n_kv * d, bias=False)  # the gradient of a bias would be 0
        self.v = nn.Linear(H, self.n_kv * d)
        self.o = nn.Linear(n * d, H)
        self.head = nn.Linear(H, V)

    def attend(self, x, mask=None, **options):
        q, k, v = heads(self.q(x), self.n), heads(self.k(x), self.n_kv), heads(self.v(x), self.n_kv)
        options.setdefault("is_causal", mask is None)
        return x + self.o(merge(F.scaled_dot_product_attention(q, k, v, mask, **options)))


def token_loss(logits, labels, **options):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **options)


@case("ids", "labels")
class OldShift(Block):
    """The shift of transformers 4: both sides sliced."""

    def forward(self, ids, labels):
        logits = self.head(self.attend(self.embed(ids)))
        return token_loss(logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous())


@case("ids", "labels")
class PaddedShift(Block):
    def forward(self, ids, labels):
        logits = self.head(self.attend(self.embed(ids)))
        return token_loss(logits, F.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:])


@case("ids", "labels")
class SeveralLosses(Block):
    """Next token, z-loss, and a mean square of hidden states, added."""

    def forward(self, ids, labels):
        hidden = self.attend(self.embed(ids))
        logits = self.head(hidden)
        z = torch.logsumexp(logits, -1).square().mean()
        return token_loss(logits, labels) + 0.1 * hidden.pow(2).mean() + 1e-2 * z


@case("features", "ids")
class TokenMse(Block):
    """No cross entropy at all: a regression per token."""

    def forward(self, features, ids):
        return F.mse_loss(self.attend(self.embed(ids)), features)


@case("ids", "classes")
class MeanPool(Block):
    def forward(self, ids, classes):
        return F.cross_entropy(self.head(self.attend(self.embed(ids)).mean(1)), classes)


@case("ids", "classes")
class FirstToken(Block):
    def forward(self, ids, classes):
        x = self.attend(self.embed(ids), is_causal=False)
        return F.cross_entropy(self.head(x[:, 0]), classes)


@case("ids", "classes")
class LastToken(Block):
    def forward(self, ids, classes):
        return F.cross_entropy(self.head(self.attend(self.embed(ids))[:, -1]), classes)


@case("ids", "mask", "classes")
class MaskedMeanPool(Block):
    def forward(self, ids, mask, classes):
        x = self.attend(self.embed(ids))
        weight = mask.unsqueeze(-1).to(x.dtype)
        pooled = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.cross_entropy(self.head(pooled), classes)


@case("ids", "classes")
class MaxPool(Block):
    """A maximum over the sequence: the gradient goes to the rank that has it."""

    def forward(self, ids, classes):
        return F.cross_entropy(self.head(self.attend(self.embed(ids)).amax(1) - 3.0), classes)


@case("ids", "mask", "labels")
class PerTokenWeights(Block):
    """The user's own mean: log-probabilities gathered, weighted, divided by the weights' sum."""

    def forward(self, ids, mask, labels):
        log_p = F.log_softmax(self.head(self.attend(self.embed(ids))), -1)
        token = labels.clamp(min=0)
        picked = log_p.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        weight = mask.to(picked.dtype)
        return -(picked * weight).sum() / weight.sum()


@case("ids", "labels", "mask")
class SumOverCount(Block):
    def forward(self, ids, labels, mask):
        logits = self.head(self.attend(self.embed(ids)))
        return token_loss(logits, labels, reduction="sum") / mask.sum()


@case("ids", "labels")
class SumLoss(Block):
    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels, reduction="sum")


@case("ids", "labels")
class OtherIgnoreIndex(Block):
    def forward(self, ids, labels):
        logits = self.head(self.attend(self.embed(ids)))
        own = torch.where(labels == IGNORE_INDEX, 7, labels)
        return token_loss(logits, own, ignore_index=7)


@case("ids", "labels")
class CumsumMixer(Block):
    """A running mean over the tokens before: a scan, no attention."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        count = torch.arange(1, ids.shape[1] + 1)
        x = x + self.o(torch.cumsum(self.v(x), 1) / count[:, None])
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class SharedKeys(Block):
    """Two attentions read one K and V."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        k, v = heads(self.k(x)), heads(self.v(x))
        for _ in range(2):
            q = heads(self.q(x))
            x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class QueryIsKeyIsValue(Block):
    def forward(self, ids, labels):
        x = self.embed(ids)
        h = heads(x)
        x = x + self.o(merge(F.scaled_dot_product_attention(h, h, h, is_causal=True)))
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class GroupedHeads(Block):
    def __init__(self):
        super().__init__(n_kv=2)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids), enable_gqa=True)), labels)


@case("ids", "labels")
class OneKeyHead(Block):
    def __init__(self):
        super().__init__(n_kv=1)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids), enable_gqa=True)), labels)


@case("ids", "labels")
class StraddlingHeads(Block):
    """12 heads, 3 key heads: on 4 ranks two of them need two key heads each."""

    def __init__(self):
        super().__init__(n=12, n_kv=3, d=4)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids), enable_gqa=True)), labels)


@case("ids", "labels")
class ThreeHeads(Block):
    """Three heads split over neither 2 nor 4 ranks."""

    def __init__(self):
        super().__init__(n=3, d=8)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels)


@case("ids", "labels")
class ThreeHeadsBothWays(ThreeHeads):
    """Rows of queries, and all keys: each token attends to all, and once to some."""

    def forward(self, ids, labels):
        tokens = torch.arange(ids.shape[1])
        mask = (tokens[:, None] * 7 + tokens * 3) % 5 < 4
        x = self.attend(self.embed(ids), is_causal=False)
        return token_loss(self.head(self.attend(x, mask)), labels)


@case("ids_sb", "labels_sb")
class SequenceFirst(Block):
    def forward(self, ids_sb, labels_sb):
        x = self.attend(self.embed(ids_sb).transpose(0, 1)).transpose(0, 1)
        return token_loss(self.head(x), labels_sb)


@case("ids", "labels")
class TiedHead(Block):
    def __init__(self):
        super().__init__()
        self.head.weight = self.embed.weight

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels)


@case("ids", "labels")
class Alibi(Block):
    """A dense bias per head, built from positions."""

    def forward(self, ids, labels):
        S = ids.shape[1]
        place = torch.arange(S)
        distance = (place[None, :] - place[:, None]).to(torch.get_default_dtype())
        slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
        bias = slopes[:, None, None] * distance
        bias = bias.masked_fill(place[None, :] > place[:, None], float("-inf"))
        return token_loss(self.head(self.attend(self.embed(ids), bias[None])), labels)


@case("ids", "labels")
class Window(Block):
    def forward(self, ids, labels):
        place = torch.arange(ids.shape[1])
        distance = place[:, None] - place[None, :]
        mask = (distance >= 0) & (distance < 3)
        return token_loss(self.head(self.attend(self.embed(ids), mask)), labels)


@case("ids", "documents", "labels")
class Packed(Block):
    """Attention within documents only."""

    def forward(self, ids, documents, labels):
        place = torch.arange(ids.shape[1])
        mask = (place[:, None] >= place[None, :]) & (
            documents[:, :, None] == documents[:, None, :]
        )
        return token_loss(self.head(self.attend(self.embed(ids), mask[:, None])), labels)


@case("ids", "context", "labels")
class CrossAttention(Block):
    """Keys and values from an input of another length."""

    def forward(self, ids, context, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(context)), heads(self.v(context))
        x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v)))
        return token_loss(self.head(x), labels)


@case("features", "classes")
class ClassToken(Block):
    """A vision transformer's class token before the patches: S + 1."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, H))

    def forward(self, features, classes):
        x = torch.cat([self.token.expand(features.shape[0], -1, -1), features], 1)
        x = self.attend(x, torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))
        return F.cross_entropy(self.head(x[:, 0]), classes)


@case("features", "classes")
class TokensBehindClass(Block):
    """A class token before projected patches, all attending to all: no input has S + 1."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, H))
        self.project = nn.Linear(H, H)
        self.norm = nn.LayerNorm(H)

    def forward(self, features, classes):
        x = self.project(features)
        x = torch.cat([self.token.expand(features.shape[0], 1, -1), x], 1)
        x = self.attend(self.attend(x, is_causal=False), is_causal=False)
        return F.cross_entropy(self.head(self.norm(x).mean(1) + x[:, 0]), classes)


@case("ids", "labels")
class WeightFunctions(Block):
    """What is made of weights alone: 1 + a scale, exp of a rate, a transposed head."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(H))
        self.rate = nn.Parameter(torch.randn(H))
        self.lift = nn.Parameter(torch.randn(H, H))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.scale)
        x = x * -torch.exp(self.rate)
        weight = torch.cat([self.head.weight[:4].t() * 2, self.head.weight[4:].t()], 1)
        logits = x @ weight + self.head.bias + x @ self.lift.T @ self.embed.weight.t()
        return token_loss(logits, labels)


@case("ids", "labels")
class EinsumAttention(Block):
    """[B, S, N, D] throughout, einsum, softmax by hand."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = (p(x).unflatten(-1, (N, D)) for p in (self.q, self.k, self.v))
        scores = torch.einsum("bqnd,bknd->bnqk", q, k) * D**-0.5
        S = ids.shape[1]
        scores = scores.masked_fill(torch.ones(S, S).triu(1).bool(), float("-inf"))
        mixed = torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v)
        return token_loss(self.head(x + self.o(mixed.flatten(2))), labels)


@case("ids", "labels")
class ComplexRotary(Block):
    """Positions as factors of complex numbers: Llama's own code, and as DeepSeek makes them."""

    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(32.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("kept", torch.polar(torch.ones_like(angles), angles))

    def forward(self, ids, labels):
        x = self.embed(ids)
        S = ids.shape[1]
        angles = torch.arange(S)[:, None].to(x) * torch.tensor([1.0, 0.1]).to(x)
        made = torch.complex(angles.cos(), angles.sin()).view(1, S, 1, D // 2)
        factors = self.kept[:S].to(made)[None, :, None] * made

        def rotate(y, factors):
            pairs = y.unflatten(-1, (N, -1)).reshape(*y.shape[:-1], N, D // 2, 2)
            turned = torch.view_as_complex(pairs) * factors * 0.5
            return torch.view_as_real(turned + turned.conj() * 0.25).flatten(3).transpose(1, 2)

        q, k = rotate(self.q(x), factors), rotate(self.k(x), factors.conj())
        mixed = F.scaled_dot_product_attention(q, k, heads(self.v(x)), is_causal=True)
        return token_loss(self.head(x + self.o(merge(mixed))), labels)


@case("ids", "labels")
class MergedBatchAttention(Block):
    """Batch and heads merged into one dimension, bmm."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        B, S = ids.shape
        q, k, v = (heads(p(x)).reshape(B * N, S, D) for p in (self.q, self.k, self.v))
        scores = torch.bmm(q, k.transpose(1, 2)) / 2
        scores = scores + torch.full((S, S), -1e9).triu(1)
        mixed = torch.bmm(scores.softmax(-1), v).view(B, N, S, D)
        return token_loss(self.head(x + self.o(merge(mixed))), labels)


@case("ids", "labels")
class RollMixer(Block):
    """A shift by one token by roll, which has no rule, and a flip."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        x = x + self.o(torch.roll(x, 1, 1)) + x.flip(1)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class CausalConv(Block):
    """Depthwise convolution over time, as in state-space models."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(H, H, 3, groups=H)

    def forward(self, ids, labels):
        x = self.embed(ids)
        x = x + self.conv(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class LinearAttention(Block):
    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)).sigmoid(), heads(self.k(x)).sigmoid(), heads(self.v(x))
        state = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(2)
        mixed = (q.unsqueeze(-2) @ state).squeeze(-2)
        return token_loss(self.head(x + self.o(merge(mixed))), labels)


@case("ids", "labels")
class MixtureOfExperts(Block):
    """Top-2 of 4 experts, dense dispatch, and a balance loss over all tokens."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(H, 4)
        self.up = nn.Parameter(torch.randn(4, H, 8) * 0.3)
        self.down = nn.Parameter(torch.randn(4, 8, H) * 0.3)

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        probs = self.router(x).softmax(-1)
        top, index = probs.topk(2, -1)
        gate = torch.zeros_like(probs).scatter(-1, index, top)
        hidden = F.silu(torch.einsum("bsh,ehf->bsef", x, self.up))
        mixed = torch.einsum("bsef,efh,bse->bsh", hidden, self.down, gate)
        share = (gate > 0).to(x.dtype).mean((0, 1))
        balance = 4 * (share * probs.mean((0, 1))).sum()
        return token_loss(self.head(x + mixed), labels) + 0.1 * balance


@case("ids", "labels")
class OtherNorms(Block):
    """RMSNorm as one op, 1 - x, a variance, a norm of vectors, and a detached value."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(H)

    def forward(self, ids, labels):
        x = self.norm(self.attend(self.embed(ids)))
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-3).sqrt()
        x = F.normalize(x, dim=-1) * (1 - 0.1 * torch.sigmoid(x)) + x.detach() * 0.5
        return token_loss(self.head(F.leaky_relu(x)), labels)


@case("ids", "labels")
class NoGradCopy(Block):
    """A view made under no_grad carries no gradient."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        with torch.no_grad():
            target = (x * 1.0)[:, :]
        return token_loss(self.head(x), labels) + (x - 0.5 * target).square().mean()


@case("ids", "labels")
class InPlace(Block):
    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        y = x.clone()
        y[:, 1:] += x[:, :-1] * 0.5
        y[:, 0].mul_(2.0)
        return token_loss(self.head(y), labels)


@case("ids", "labels")
class StaticShapes(Block):
    """Every size a constant of the export; the job uses others."""

    static = True

    def forward(self, ids, labels):
        B, S = ids.shape
        x = self.embed(ids)
        q, k, v = (p(x).view(B, S, N, D).transpose(1, 2) for p in (self.q, self.k, self.v))
        mask = torch.arange(S)[None, :] <= torch.arange(0, S)[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.o(mixed.transpose(1, 2).reshape(B, S, -1))
        return F.cross_entropy(self.head(x).view(B * S, V), labels.view(B * S))


@case("ids", "labels")
class LearnedPositions(Block):
    """More rows than tokens: a slice of the table, as a parameter."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(32, H))

    def forward(self, ids, labels):
        x = self.embed(ids) + self.positions[: ids.shape[1]]
        return token_loss(self.head(self.attend(x)), labels)


@case("ids", "mask", "labels")
class CountedPositions(Block):
    """Positions by a running count over the mask, as OPT and RoBERTa make them."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(34, H)

    def forward(self, ids, mask, labels):
        place = (mask.cumsum(1) * mask) + 1
        x = self.embed(ids) + self.positions(place)
        return token_loss(self.head(self.attend(x)), labels)


@case("ids", "labels")
class GatedByMean(Block):
    """A whole-sequence statistic fed back to every token (squeeze and excite)."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        gate = torch.sigmoid(self.o(x.mean(1, keepdim=True)))
        return token_loss(self.head(x * gate), labels)


@case("ids", "labels")
class BatchStatistics(Block):
    """Normalised over batch and sequence together."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        mean = x.mean((0, 1))
        variance = (x - mean).square().mean((0, 1))
        return token_loss(self.head(x * torch.rsqrt(variance + 1e-3) - 0.5 * mean), labels)


@case("ids", "labels")
class SoftmaxOverSequence(Block):
    """Attention pooling: a softmax over tokens, then broadcast back."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        weight = self.o(x)[..., :1].softmax(1)
        return token_loss(self.head(x + (weight * x).sum(1, keepdim=True)), labels)
