"""Cases of ops whose sizes follow from those of their operands, exported with constant sizes.

B batch, S sequence, H hidden, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import Block, H, case, heads, merge, token_loss


@case("ids", "labels")
class TypesOfOthers(Block):
    """Norms that compute in fp32 and give the type back (llama2.c, gpt-fast), and a parameter of
    which nothing but the type is read."""

    static = True

    def __init__(self):
        super().__init__()
        self.kind = torch.nn.Parameter(torch.zeros(3))

    def norm(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).type_as(x)

    def forward(self, ids, labels):
        x = self.norm(self.embed(ids).type_as(self.kind))
        return token_loss(self.head(self.norm(self.attend(x))), labels)


@case("ids", "labels")
class SumsOfEllipses(Block):
    """Linear attention (Performer) with ellipses in its sums, of which inner tokens are one."""

    static = True

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)).exp(), heads(self.k(x)).exp(), heads(self.v(x))
        context = torch.einsum("...nd,...ne->...de", k, v)
        scale = 1 / torch.einsum("...nd,...d->...n", q, k.sum(2))
        out = torch.einsum("...de,...nd,...n->...ne", context, q, scale)
        return token_loss(self.head(x + self.o(merge(out))), labels)


@case("ids", "labels")
class VectorsCompared(Block):
    """Similarities, distances and gates of tokens, by ops that have no rule."""

    static = True

    def forward(self, ids, labels):
        x = self.embed(ids)
        near = F.cosine_similarity(x, self.q(x), dim=-1).unsqueeze(-1)
        far = (-torch.cdist(x, self.k(x))).softmax(-1) @ x
        gated = F.glu(torch.cat([x, self.v(x)], -1), dim=-1)
        apart = F.triplet_margin_loss(x, self.q(x), self.k(x))
        return token_loss(self.head(near * x + far + gated), labels) + 0.1 * apart


@case("ids", "labels")
class SequencesByThemselves(Block):
    """Ops that take each sequence, or each token, by itself: places between places, transposed
    convolutions, medians, and losses of vectors."""

    auto = True

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose1d(H, H, 3, padding=1)
        self.wide = nn.ConvTranspose1d(H, H, 4, stride=2, padding=1, groups=2)

    def forward(self, ids, labels):
        x = self.embed(ids)
        S = x.shape[1]
        q, k, v = self.q(x), self.k(x), self.v(x)
        y = self.up(q.transpose(1, 2)) + F.interpolate(k[:, :4].transpose(1, 2), size=S)
        y = y + self.wide(v.transpose(1, 2))[..., 1::2]
        y = y + F.interpolate(q.transpose(1, 2), scale_factor=2, mode="linear")[..., :S]
        near = F.cosine_similarity(q, k, dim=-1) + F.pairwise_distance(k, v)
        middle = q.median(-1).values + k.nanmedian(-1).values + v.kthvalue(3, -1).values
        y = y.transpose(1, 2) + (near + middle)[..., None] * x
        y = y + F.interpolate(v[..., :4], size=H, mode="linear", align_corners=True)
        same = torch.where(labels.flatten() > 10, 1, -1)
        loss = F.cosine_embedding_loss(q.flatten(0, 1), v.flatten(0, 1), same, margin=0.1)
        loss = loss + F.triplet_margin_loss(q, k, v, swap=True)
        loss = loss + F.triplet_margin_loss(x[:, 0], k[:, 0], v[:, 0], reduction="none").mean()
        return token_loss(self.head(x + self.o(y)), labels) + 0.1 * loss


@case("ids", "labels")
class ViewsOfABatch(Block):
    """Two views of each sequence, one behind the other: sequences that are compared with all."""

    static = True

    def forward(self, ids, labels):
        x = self.embed(ids)
        views = torch.cat([self.attend(x), self.attend(x.tanh())], 0)
        z = F.normalize(views.mean(1), dim=-1)
        itself = torch.eye(z.shape[0], dtype=torch.bool)
        pairs = (z @ z.T).masked_fill(itself, -9e15).logsumexp(1).mean()
        tokens = token_loss(self.head(views), torch.cat([labels, labels], 0))
        return tokens + 0.1 * pairs


@case("ids", "labels")
class SkewedPositions(Block):
    """Scores of tokens against others, skewed as Transformer-XL and the Music Transformer do it:
    [S, S + 1] shown as [S + 1, S]."""

    static = True

    def shift(self, scores):
        B, N, S, _ = scores.shape
        beside = torch.cat([torch.zeros(B, N, S, 1), scores], -1)
        return beside.view(B, N, S + 1, S)[:, :, 1:]

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = q @ k.transpose(2, 3) + self.shift(q.tanh() @ v.transpose(2, 3))
        future = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        weights = (scores / 2).masked_fill(future, float("-inf")).softmax(-1)
        return token_loss(self.head(x + self.o(merge(weights @ v))), labels)


@case("ids", "labels")
class CountedRows(Block):
    """Sums of tokens by sequence and by kind of token, into rows that are made for as many."""

    static = True

    def forward(self, ids, labels):
        (b, s), kinds = ids.shape, ids % 3
        x = self.attend(self.embed(ids))
        flat = x.flatten(0, 1)
        rows = torch.arange(b)[:, None].expand(b, s).reshape(-1)
        sums = torch.zeros(b, H).index_add(0, rows, flat).mul(0.1)
        last = x.new_zeros(b, H).index_put((torch.arange(0, b),), x[:, -1], accumulate=True)
        first = torch.zeros(b, H).scatter_add(0, torch.arange(b)[:, None].expand(-1, H), x[:, 0])
        groups = (kinds + 3 * torch.arange(b)[:, None]).flatten()
        by_kind = torch.zeros(3 * b, H).index_add_(0, groups, flat).view(b, 3, H).mul(0.1)
        loss = token_loss(self.head(x + (sums + last + first)[:, None]), labels)
        return loss + by_kind.square().mean()
