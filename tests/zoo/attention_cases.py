"""Cases of attention: numbers of heads, forms, masks, windows, documents, rows that see nothing.

B batch, S sequence, H hidden, N heads, D head size, K key heads.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import H, N, D, Block, case, heads, merge, token_loss

NEGATIVE = float("-inf")


class Masked(Block):
    """Attention under `mask(place, **inputs)`, which may have any shape that SDPA takes."""

    def forward(self, ids, labels, **inputs):
        mask = self.mask(torch.arange(ids.shape[1]), **inputs)
        return token_loss(self.head(self.attend(self.embed(ids), mask)), labels)


@case("ids", "labels")
class Bidirectional(Block):
    """No mask: padding of the plan's own must not be seen."""

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids), is_causal=False)), labels)


@case("ids", "labels")
class TwoHeads(Block):
    """Fewer heads than ranks."""

    def __init__(self):
        super().__init__(n=2, d=8)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels)


@case("ids", "labels")
class TwoHeadsOfOtherValues(Block):
    """Attention to all tokens, values longer and shorter than keys; ranks share rows of heads."""

    def __init__(self):
        super().__init__(n=2)
        self.long, self.o_long = nn.Linear(H, 2 * 6), nn.Linear(2 * 6, H)
        self.short, self.o_short = nn.Linear(H, 2 * 3, bias=False), nn.Linear(2 * 3, H)

    def forward(self, ids, labels):
        x = self.embed(ids)
        for value, out in ((self.long, self.o_long), (self.short, self.o_short)):
            q, k, v = (heads(each(x), 2) for each in (self.q, self.k, value))
            x = x + out(merge(F.scaled_dot_product_attention(q, k, v)))
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class EmptyCache(Block):
    """use_cache=True of transformers: keys and values go behind those of a cache without any."""

    def __init__(self):
        super().__init__(n_kv=2)

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(x), 2), heads(self.v(x), 2)
        k, v = (torch.cat([torch.tensor([]), part], dim=-2) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        nothing = x.transpose(0, 1)[..., H:].transpose(0, 1) * 2
        x = x + self.o(merge(y))
        return token_loss(self.head(torch.cat([x, nothing], dim=-1)), labels)


@case("ids", "labels")
class OneHead(Block):
    def __init__(self):
        super().__init__(n=1, d=16)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids), is_causal=False)), labels)


@case("ids", "labels")
class RepeatedHeads(Block):
    """repeat_kv in the graph: unsqueeze, expand, reshape."""

    def __init__(self):
        super().__init__(n_kv=2)

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(x), 2), heads(self.v(x), 2)
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class StraddlingMasked(Masked):
    """Key heads that straddle ranks, under a mask that is read from its graph."""

    def __init__(self):
        super().__init__(n=12, n_kv=3, d=4)

    def forward(self, ids, labels):
        place = torch.arange(ids.shape[1])
        mask = place[:, None] - place[None, :]
        mask = (mask >= 0) & (mask < 5)
        return token_loss(self.head(self.attend(self.embed(ids), mask, enable_gqa=True)), labels)


@case("ids", "labels")
class PrefixMask(Masked):
    """Dense and not causal: a prefix that all see."""

    def mask(self, place):
        return (place[None, :] <= place[:, None]) | (place[None, :] < 3)


@case("ids", "labels")
class StridedMask(Masked):
    """Dense, with a remainder of indices."""

    def mask(self, place):
        distance = place[:, None] - place[None, :]
        return (distance >= 0) & ((distance < 2) | (distance % 3 == 0))


@case("ids", "documents", "labels")
class MaskOfTokens(Masked):
    """[B, 1, S, S] from values: a token sees the tokens of other documents, and itself."""

    def mask(self, place, documents):
        differs = documents[:, :, None] != documents[:, None, :]
        return (differs | (place[:, None] == place[None, :]))[:, None]


@case("ids", "mask", "labels")
class KeyPadding(Masked):
    """[B, 1, 1, S], bidirectional."""

    def mask(self, place, mask):
        return mask.bool()[:, None, None, :]


@case("ids", "mask", "labels")
class AddedKeyPadding(Masked):
    """The additive form: (1 - mask) times a large negative number."""

    def mask(self, place, mask):
        kept = mask[:, None, None, :].to(torch.get_default_dtype())
        return (1.0 - kept) * -1e9


@case("ids", "mask", "labels")
class CausalKeyPadding(Masked):
    def mask(self, place, mask):
        return mask.bool()[:, None, None, :] & (place[None, :] <= place[:, None])


@case("ids", "labels")
class HeadMasks(Masked):
    """[1, N, S, S]: each head has its own window."""

    def mask(self, place):
        distance = place[:, None] - place[None, :]
        reach = torch.arange(1, N + 1)[:, None, None]
        return ((distance >= 0) & (distance < 2 * reach))[None]


@case("ids", "labels")
class LearnedBias(Masked):
    """A bias per head and distance that is trained: the gradient of a mask."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Embedding(5, N)

    def mask(self, place):
        distance = (place[None, :] - place[:, None]).clamp(-2, 2) + 2
        return self.bias(distance).permute(2, 0, 1)[None]


@case("ids", "labels")
class WindowOnBothSides(Masked):
    def mask(self, place):
        return (place[:, None] - place[None, :]).abs() < 3


@case("ids", "documents", "labels")
class PackedWindow(Masked):
    """A window within documents, whose borders are not those of shards."""

    def mask(self, place, documents):
        distance = place[:, None] - place[None, :]
        same = documents[:, :, None] == documents[:, None, :]
        return ((distance >= 0) & (distance < 4) & same)[:, None]


@case("ids", "documents", "labels")
class PackedOnBothSides(Masked):
    def mask(self, place, documents):
        return (documents[:, :, None] == documents[:, None, :])[:, None]


@case("ids", "positions", "labels")
class RestartingPositions(Masked):
    """Documents counted in the graph: a new one where the position is 0."""

    def mask(self, place, positions):
        documents = (positions == 0).cumsum(-1)
        same = documents[:, :, None] == documents[:, None, :]
        return (same & (place[None, :] <= place[:, None]))[:, None]


@case("ids", "mask", "labels")
class RowsThatSeeNothing(Masked):
    """A padded query sees no key at all: its output is 0, its gradients too."""

    def mask(self, place, mask):
        kept = mask.bool()
        both = kept[:, :, None] & kept[:, None, :]
        return (both & (place[None, :] <= place[:, None]))[:, None]


@case("ids", "labels")
class StrictlyBefore(Masked):
    """The first query sees nothing, on whichever rank it is."""

    def mask(self, place):
        return place[None, :] < place[:, None]


@case("ids", "labels")
class KeywordArguments(Block):
    def forward(self, ids, labels):
        x = self.embed(ids)
        mixed = F.scaled_dot_product_attention(
            value=heads(self.v(x)), query=heads(self.q(x)), key=heads(self.k(x)),
            dropout_p=0.0, scale=0.3, is_causal=True)
        return token_loss(self.head(x + self.o(merge(mixed))), labels)


@case("ids", "labels")
class ThreeDimensions(Block):
    """SDPA on [B, S, H]: one head, no dimension of heads."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        mixed = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=True)
        return token_loss(self.head(x + self.o(mixed)), labels)


@case("ids", "labels")
class HeadsInBatch(Block):
    """SDPA on [B * N, S, D]."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        B, S = ids.shape
        q, k, v = (heads(p(x)).reshape(B * N, S, D) for p in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return token_loss(self.head(x + self.o(merge(mixed.view(B, N, S, D)))), labels)


@case("ids", "labels")
class CappedScores(Block):
    """matmul, a soft cap, a mask, softmax, matmul."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = 5 * torch.tanh(q @ k.transpose(-1, -2) / 10)
        place = torch.arange(ids.shape[1])
        scores = torch.where(place[None, :] <= place[:, None], scores, NEGATIVE)
        return token_loss(self.head(x + self.o(merge(scores.softmax(-1) @ v))), labels)


@case("ids", "labels")
class GroupedByHand(Block):
    """[B, K, N / K, S, D]: groups as a dimension of their own."""

    def __init__(self):
        super().__init__(n_kv=2)

    def forward(self, ids, labels):
        x = self.embed(ids)
        q = heads(self.q(x)).unflatten(1, (2, 2))
        k, v = heads(self.k(x), 2)[:, :, None], heads(self.v(x), 2)[:, :, None]
        scores = q @ k.transpose(-1, -2) * D**-0.5
        place = torch.arange(ids.shape[1])
        scores = scores.masked_fill(place[None, :] > place[:, None], NEGATIVE)
        mixed = (scores.softmax(-1) @ v).flatten(1, 2)
        return token_loss(self.head(x + self.o(merge(mixed))), labels)


@case("ids", "labels")
class TorchEncoderLayer(Block):
    """nn.TransformerEncoderLayer: packed projections, sequence first inside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(H, N, 24, dropout=0.0, batch_first=True)

    def forward(self, ids, labels):
        return token_loss(self.head(self.layer(self.embed(ids))), labels)


@case("ids", "labels")
class OtherUsersOfHeads(Block):
    """Queries, keys and values are read besides attention too."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        x = x + self.o(merge(F.scaled_dot_product_attention(q, k, v, is_causal=True) + q))
        penalty = k.square().mean() + v.amax(2).square().mean()
        return token_loss(self.head(x), labels) + 0.1 * penalty


@case("ids", "labels")
class OtherValueHeads(Block):
    """Value heads of another size than query heads."""

    def __init__(self):
        super().__init__()
        self.v = nn.Linear(H, N * 6)
        self.o = nn.Linear(N * 6, H)

    def forward(self, ids, labels):
        return token_loss(self.head(self.attend(self.embed(ids))), labels)


@case("ids", "labels")
class LatentAttention(Block):
    """Keys and values from a latent, and a part of the keys that all heads share: heads of q and k
    are larger than those of v."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(H, N * 6)
        self.down = nn.Linear(H, 5)
        self.up = nn.Linear(5, N * 2 * D, bias=False)
        self.shared = nn.Linear(H, 2, bias=False)

    def forward(self, ids, labels):
        x = self.embed(ids)
        k, v = heads(self.up(self.down(x))).split(D, dim=-1)
        shared = self.shared(x)[:, None].expand(-1, N, -1, -1)
        attended = F.scaled_dot_product_attention(
            heads(self.q(x)), torch.cat([k, shared], -1), v, is_causal=True)
        return token_loss(self.head(x + self.o(merge(attended))), labels)


@case("ids", "labels")
class OtherValueHeadsMasked(Block):
    """Larger value heads and then smaller ones, under a dense mask: no block may be left out."""

    def __init__(self):
        super().__init__(n_kv=2)
        self.wide = nn.Linear(H, 2 * 6)
        self.narrow = nn.Linear(H, 2 * 3)
        self.o_wide = nn.Linear(N * 6, H)
        self.o_narrow = nn.Linear(N * 3, H)

    def forward(self, ids, labels):
        x = self.embed(ids)
        place = torch.arange(ids.shape[1])
        mask = (place[None, :] <= place[:, None]) | (place[None, :] < 3)
        for value, out in ((self.wide, self.o_wide), (self.narrow, self.o_narrow)):
            q, k, v = heads(self.q(x)), heads(self.k(x), 2), heads(value(x), 2)
            options = {"attn_mask": mask, "enable_gqa": True}
            x = x + out(merge(F.scaled_dot_product_attention(q, k, v, **options)))
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class TriangleMasks(Block):
    """Causal masks and windows from triangles of ones, of -inf and of low numbers."""

    def forward(self, ids, labels):
        x, S = self.embed(ids), ids.shape[1]
        ones = torch.ones(S, S)
        blocked = ones.bool().triu(1)
        band = ones.tril().triu(-4)
        x = self.attend(x, ones.bool().tril())
        x = self.attend(x, torch.zeros(S, S).masked_fill(blocked, float("-inf")).to(x.dtype))
        x = self.attend(x, torch.full((S, S), float("-inf")).triu(1).to(x.dtype))
        x = self.attend(x, ((1.0 - band) * -1e9).to(x.dtype))
        i = torch.arange(S)
        x = self.attend(x, (i[:, None] - i).abs() < 5)
        return token_loss(self.head(x), labels)


@case("ids", "mask", "labels")
class KeysByLengths(Block):
    """Keys hidden behind the length of each sequence, in heads that stand in the batch."""

    def forward(self, ids, mask, labels):
        x = self.embed(ids).transpose(0, 1)
        S, B, _ = x.shape
        q, k, v = (
            project(x).contiguous().view(S, B * N, D).transpose(0, 1)
            for project in (self.q, self.k, self.v))
        hidden = torch.arange(S)[None] >= mask.sum(1)[:, None]
        scores = torch.bmm(q / 2, k.mT).view(B, N, S, S)
        scores = scores.masked_fill(hidden[:, None, None], NEGATIVE).view(B * N, S, S)
        y = torch.bmm(F.softmax(scores, -1), v).transpose(0, 1).contiguous().view(S, B, H)
        return token_loss(self.head((self.o(y) + x).transpose(0, 1)), labels)


@case("ids", "labels")
class MasksOfScores(Block):
    """Masks that scores are compared for, of truth values and of -inf, spelled out too."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        alike = x @ x.mT / H
        shown = (alike >= alike.mean(-1, keepdim=True))[:, None]
        x = self.attend(x, shown)
        x = self.attend(x, torch.where(shown, 0.0, NEGATIVE))
        q, k, v = (heads(project(x)) for project in (self.q, self.k, self.v))
        scores = q @ k.mT / 4
        low = scores < scores.mean(-1, keepdim=True)
        x = x + self.o(merge(scores.masked_fill(low, NEGATIVE).softmax(-1) @ v))
        known = torch.where(ids > 5, 0.0, NEGATIVE)[:, None]
        biased = (alike + known).masked_fill(alike < -9, NEGATIVE).softmax(-1)
        return token_loss(self.head(x + biased @ x), labels)


@case("ids", "labels")
class DensePairs(Block):
    """Scores under a mask that is no rule, heads that are mixed, and similarities of all tokens."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.eye(N) + 0.3 * torch.randn(N, N))

    def forward(self, ids, labels):
        x, S = self.embed(ids), ids.shape[1]
        i = torch.arange(S)
        allowed = (i[None] <= i[:, None]) | (i[None] * 3 % 5 == 1)
        x = self.attend(x, allowed)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = torch.einsum("bnst,nm->bmst", q @ k.transpose(2, 3), self.mix) / 2
        scores = torch.where(allowed, scores, float("-inf"))
        x = x + self.o(merge(scores.softmax(-1) @ v))
        a, b = F.normalize(self.q(x), dim=-1), F.normalize(self.k(x), dim=-1)
        alike = (a @ b.transpose(1, 2) * 5).transpose(1, 2)
        places = i.expand(ids.shape[0], -1)
        return token_loss(self.head(x), labels) + F.cross_entropy(alike, places)


@case("ids", "mask", "labels")
class MultiheadDefault(Block):
    """Weights that nobody reads, in causal order, with padded keys, and of some other tokens."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(H, 4, batch_first=True)

    def forward(self, ids, mask, labels):
        x, size = self.embed(ids), ids.shape[1]
        later = torch.ones(size, size, dtype=torch.bool, device=ids.device).triu(1)
        x = x + self.attention(x, x, x, attn_mask=later, key_padding_mask=mask == 0)[0]
        x = x + self.attention(x, self.o(x), self.o(x))[0]
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class OtherDimensions(Block):
    """Heads in two groups, one head without a dimension of its own, and a mask for each group."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        split = self.o(x).unflatten(-1, (2, 2, -1)).movedim(1, 3)
        x = x + F.scaled_dot_product_attention(split, split, split, is_causal=True).movedim(
            3, 1).flatten(2)
        tokens = torch.arange(ids.shape[1], device=ids.device)
        near = (tokens[:, None] * 7 + tokens * 3) % 5 < torch.tensor([3, 4])[:, None, None, None]
        x = x + F.scaled_dot_product_attention(split, split, split, near).movedim(3, 1).flatten(2)
        x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class QueriesOfAll(Block):
    """Three trained queries, the same for all sequences."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, H))

    def forward(self, ids, labels):
        x = self.embed(ids)
        pooled = F.scaled_dot_product_attention(heads(self.queries[None]), heads(x), heads(x.sin()))
        return token_loss(self.head(x + merge(pooled).mean(1, keepdim=True)), labels)
