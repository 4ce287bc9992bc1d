"""Cases of ops that some models write: other names of ops, rare functions, forms of writes.

B batch, S sequence, H hidden, N heads, D head size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import D, H, N, Block, case, heads, merge, token_loss


@case("ids", "labels")
class OtherNames(Block):
    """Ops that PyTorch has under several names, and views that another tensor gives sizes to."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = (heads(project(x)) for project in (self.q, self.k, self.v))
        scores = (q @ k.mT).masked_fill(torch.ones(x.shape[1], x.shape[1]).tril().logical_not(),
                                        -1e4)
        mixed = torch.softmax(scores, -1) @ v
        mixed = torch.concat([mixed[..., 1:], mixed[..., :1]], -1).movedim(1, 2)
        x = torch.add(x, mixed.reshape_as(x) @ self.o.weight.T)
        x = x + x.swapaxes(0, 1).clone().swapdims(0, 1).view_as(x)
        angles = torch.outer(torch.arange(x.shape[1]) * 0.5, self.o.bias)
        x = torch.max(x, x.narrow(2, 0, 8).repeat(1, 1, 2)) + torch.min(angles.sin(), x)
        x = torch.multiply(x, torch.broadcast_to(self.v.bias, x.shape)).negative().clip(-3, 3)
        even = torch.where(torch.bitwise_and(ids, 1) == 0, 1.0, 0.5)
        return token_loss(self.head(x * even[..., None]), labels)


@case("ids", "labels")
class RareFunctions(Block):
    """Elementwise functions that are no part of usual layers."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids)).tanh()
        y = self.o(x)
        positive = 1 + y.square()
        terms = [
            torch.lerp(x, y, y.sigmoid()), torch.addcdiv(x, y, positive, value=0.5),
            torch.atan2(x, positive), torch.hypot(x, positive), torch.logaddexp(x, y),
            torch.logaddexp2(x, y), torch.xlogy(y, positive), 2 ** (-y.abs()),
            torch.fmod(x, 0.7), torch.fmod(y, positive), y.frac(), torch.fmax(x, y),
            torch.fmin(x, y.cosh().log10()), torch.copysign(x, y), torch.copysign(y, -1),
            torch.clamp(x, y - 1, y + 1), torch.clamp(x, max=y), x.sinh(), x.asinh(),
            F.selu(x), F.celu(y), F.relu6(x), F.softshrink(y), F.hardshrink(x), F.hardsigmoid(y),
            F.threshold(x, 0.1, 0.2), x.erfc(), x.atan(), y.trunc(), torch.nan_to_num(y),
        ]
        return token_loss(self.head(sum(terms) / 16), labels)


@case("ids", "labels")
class AlibiByBaddbmm(Block):
    """A bias for each head that is added by the product of queries and keys, as in BLOOM."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        B, S = ids.shape
        q, k, v = (heads(project(x)).reshape(B * N, S, D) for project in (self.q, self.k, self.v))
        slopes = 2.0 ** -torch.arange(1, N + 1)
        alibi = (slopes[:, None, None] * torch.arange(S)).repeat(B, 1, 1)
        scores = alibi.baddbmm(q, k.mT, beta=0.5, alpha=D**-0.5).view(B, N, S, S)
        causal = torch.ones(S, S, dtype=torch.bool).tril()
        weights = torch.softmax(scores.masked_fill(~causal, -1e4), -1).view(B * N, S, S)
        mixed = merge(torch.bmm(weights, v).view(B, N, S, D))
        return token_loss(self.head(x + self.o(mixed)), labels)


@case("ids", "labels")
class NoGradViews(Block):
    """What shows all of a tensor, or repeats it, under no_grad: the tensor keeps its gradient."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        with torch.no_grad():
            same = x.contiguous()
            viewed = x.view(x.shape)
            part = x[..., 2:10].expand(x.shape[0], -1, -1)
            repeated = x[..., :8].repeat_interleave(2, -1) + x[..., 8:].repeat(1, 1, 2)
        x = x * same.sigmoid() + viewed.tanh() * x + repeated + torch.cat([part, part], -1)
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class KeysBySlices(Block):
    """Latent attention that writes its keys into an empty tensor, part by part, as DeepSeek-V3."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        q, k, v = (heads(project(x)) for project in (self.q, self.k, self.v))
        keys = k.new_empty(*k.shape[:-1], 6)
        keys[..., :4] = k
        keys[..., 4:] = v[:, :1, :, :2]
        queries = torch.empty(*q.shape[:-1], 6)
        queries[..., 2:] = q
        queries[..., :2].copy_(q[..., :2]).mul_(0.5)
        mixed = F.scaled_dot_product_attention(queries, keys, v, is_causal=True)
        x = x + self.o(merge(mixed))
        gate = torch.empty_like(x)
        gate[:] = x.sigmoid()
        return token_loss(self.head(x * gate), labels)


@case("ids", "labels")
class ExpertHistogram(Block):
    """The share of tokens of each expert by histc, and what the router thinks of it, as OLMoE."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        weights = torch.softmax(self.q(x).flatten(0, 1), -1)
        chosen = weights.topk(2, -1).indices
        share = torch.histc(chosen.flatten().float(), bins=H, min=0, max=H - 1) / (2 * ids.numel())
        return token_loss(self.head(x), labels) + (share * weights.mean(0)).sum()


@case("ids", "labels")
class ReshapesInPlace(Block):
    """unsqueeze_, transpose_ and squeeze_: later uses see the shape, other views do not."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        y = self.o(x)
        y[..., :2] *= 0.5
        first = y[:, 0]
        y.unsqueeze_(1).transpose_(1, 2)
        first.unsqueeze_(1)
        z = x.sin()
        z.transpose_(0, 1)
        return token_loss(self.head(y.squeeze_(2) * first + x * z.swapaxes_(0, 1)), labels)


@case("ids", "labels")
class PlacesAndChoices(Block):
    """Ops that choose places or are chosen by them: greatest elements, classes, boundaries."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        kinds = self.v.weight[x.argmax(-1)] + self.k.weight[x.argmin(-1, keepdim=True)].squeeze(2)
        code = F.one_hot(ids % 8, 8).to(x.dtype) @ self.o.weight[:8]
        edges = torch.arange(7) * 0.5 - 1.5
        levels = self.q.weight[torch.bucketize(x[..., 0], edges)]
        ranks = self.q.weight[torch.searchsorted(edges, x[..., 1], right=True)]
        rows = self.o.weight[torch.searchsorted(x.sort(-1).values, x[..., :2]).sum(-1) % H]
        sums = x.new_zeros(*x.shape[:2], 4).index_add(-1, torch.arange(H) % 4, x, alpha=0.5)
        last = x.gather(1, ids.argmax(1)[:, None, None].expand(-1, 1, H))
        x = x + kinds + code + levels + ranks + rows + sums.repeat(1, 1, 4) + last
        return token_loss(self.head(x), labels)


@case("ids", "labels")
class OtherProducts(Block):
    """Products with vectors, products that are summed over a batch, identities, diagonals."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        left = self.q.weight.view(H, N, D).transpose(0, 1)
        mixed = torch.addbmm(self.o.weight, left, self.v.weight.view(N, D, H), beta=0.5, alpha=2)
        x = x + x @ (mixed + torch.eye(H)) * 0.3
        x = x + torch.mv(x.flatten(0, 1), self.q.bias).view(ids.shape)[..., None]
        x = x * (1 + torch.dot(self.q.bias, self.v.bias)) + (x @ self.o.bias)[..., None]
        blocks = x.unflatten(-1, (4, 4))
        inner = blocks.diagonal(0, -2, -1).sum(-1, keepdim=True)
        x = x + inner + F.pad(blocks.diagonal(1, -1, -2), (0, H - 3))
        near = torch.eye(x.shape[1]) + 0.1
        x = x + near @ x * 0.1
        return token_loss(self.head(x + (x @ x.mT).diagonal(0, 1, 2)[..., None] * 0.1), labels)


@case("ids", "labels", "context")
class ImageRows(Block):
    """Features of images for the tokens that stand for them, as LLaVA and Qwen2-VL put them."""

    def forward(self, ids, labels, context):
        x = self.embed(ids)
        mask = (ids % 9 == 4)[..., None].expand_as(x)
        x = x.masked_scatter(mask, self.v(context).flatten(0, 1))
        return token_loss(self.head(self.attend(x)), labels)


@case("ids", "labels")
class NormsOverTokens(Block):
    """Norms whose statistics go over all tokens, and such as go over one token or a parameter."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        y = F.group_norm(x.mT, 4, self.v.bias + 1, self.o.bias).mT
        z = F.instance_norm(self.o(x).mT, weight=self.q.bias + 1).mT
        own = F.group_norm(x.flatten(0, 1), N, self.o.bias + 1).view_as(x)
        weight = torch._weight_norm(self.k.weight, self.q.weight[:, :1], 0)
        return token_loss(self.head(x + y + z + own @ weight), labels)


@case("ids", "labels")
class WindowsOfTokens(Block):
    """Pools with a window at each token, windows by unfold, and a pool of all tokens."""

    static = True  # the exporter makes constants of the sizes that are pooled

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids)).mT
        y = F.avg_pool1d(x, 3, 1, 1) + F.avg_pool1d(F.pad(x, (2, 0)), 3, 1)
        y = y + F.avg_pool1d(x, 3, 1, 1, count_include_pad=False) + F.max_pool1d(x, 3, 1, 1)
        windows = F.pad(x, (3, 0)).unfold(2, 4, 1)
        y = y + (windows * self.v.bias[:4]).sum(-1) + F.adaptive_avg_pool1d(x, 1)
        return token_loss(self.head((x + y).mT), labels)


class GroupedExperts(Block):
    """Experts whose rows are sorted, multiplied in groups, and put back in their order."""

    E, K = 4, 2  # experts, and how many of them each token has

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(H, self.E)
        self.up = nn.Parameter(torch.randn(self.E, H, 16) * 0.3)
        self.up_bias = nn.Parameter(torch.randn(self.E, 16) * 0.3)
        self.down = nn.Parameter(torch.randn(self.E, H, 8) * 0.3)

    @staticmethod
    def product(rows, weight, ends):
        """ATen's kernel, which has no float64, in which references are computed."""
        if rows.dtype != torch.float64:
            return torch._grouped_mm(rows, weight, ends)
        group = torch.bucketize(torch.arange(rows.size(0)), ends, right=True)
        return torch.bmm(rows.unsqueeze(1), weight[group]).squeeze(1)

    def route(self, tokens):
        weights, experts = self.router(tokens).softmax(-1).topk(self.K, -1)
        return weights / weights.sum(-1, keepdim=True), experts

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        return token_loss(self.head(x + self.mix(x.flatten(0, 1)).view_as(x)), labels)


@case("ids", "labels")
class SortedExperts(GroupedExperts):
    """As transformers writes experts, in fp32 with an op of its own."""

    @staticmethod
    def product(rows, weight, ends):
        import transformers.integrations.moe  # noqa: F401  Registers the op.

        return torch.ops.transformers.grouped_mm_fallback(rows, weight, offs=ends)

    def mix(self, tokens):
        weights, experts = self.route(tokens)
        sorted_experts, order = torch.sort(experts.reshape(-1))
        rows = tokens[order // self.K]
        counts = torch.histc(sorted_experts.float(), bins=self.E, min=0, max=self.E - 1)
        ends = torch.cumsum(counts, dim=0, dtype=torch.int32)
        rows = self.product(rows, self.up, ends).add_(self.up_bias[sorted_experts])
        gate, up = rows.chunk(2, -1)
        rows = self.product(F.silu(gate) * up, self.down.transpose(-2, -1), ends)
        rows = rows * weights.reshape(-1)[order].unsqueeze(-1)
        places = torch.empty_like(order)
        places[order] = torch.arange(order.size(0))
        return rows[places].view(tokens.size(0), self.K, H).sum(1)


@case("ids", "labels")
class StaticSortedExperts(SortedExperts):
    """The same with batch and length as constants."""

    static = True


@case("ids", "labels")
class ScatteredExperts(GroupedExperts):
    """As torchtitan writes experts: tokens are gathered, and sums scattered to them."""

    def mix(self, tokens):
        weights, experts = self.route(tokens)
        flat = experts.view(-1)
        counts = torch.histc(flat.float(), bins=self.E, min=0, max=self.E)
        order = torch.argsort(flat, stable=True)
        source = (order // self.K).reshape(-1, 1).expand(-1, H)
        rows = torch.gather(tokens, 0, source) * weights.view(-1)[order].reshape(-1, 1)
        ends = torch.cumsum(counts, 0).to(torch.int32)
        gate, up = self.product(rows, self.up, ends).chunk(2, -1)
        rows = self.product(F.silu(gate) * up, self.down.transpose(-2, -1), ends)
        return torch.zeros_like(tokens).scatter_add(0, source, rows)


@case("ids", "labels")
class OrderedExperts(GroupedExperts):
    """A running sum over sorted rows sees their order, so that all ranks sort all rows."""

    def mix(self, tokens):
        weights, experts = self.route(tokens)
        sorted_experts, order = torch.sort(experts.reshape(-1), stable=True)
        counts = torch.histc(sorted_experts.float(), bins=self.E, min=0, max=self.E - 1)
        ends = torch.cumsum(counts, dim=0, dtype=torch.int32)
        rows = F.silu(self.product(tokens[order // self.K], self.up, ends)[:, :8]).cumsum(0) * 0.1
        rows = self.product(rows, self.down.transpose(-2, -1), ends)
        rows = rows * weights.reshape(-1)[order].unsqueeze(-1)
        return torch.zeros_like(tokens).index_add(0, order // self.K, rows)


@case("ids", "labels")
class RecurrentCells(Block):
    """Gates of GTrXL, whose residuals go through a GRU, and few steps of an LSTM and an RNN."""

    def __init__(self):
        super().__init__()
        self.gru, self.plain = nn.GRUCell(H, H), nn.GRUCell(H, H, bias=False)
        self.lstm, self.bare = nn.LSTMCell(H, H), nn.LSTMCell(H, H, bias=False)
        self.tanh, self.relu = nn.RNNCell(H, H), nn.RNNCell(H, H, bias=False, nonlinearity="relu")

    def forward(self, ids, labels):
        x = self.embed(ids)
        rows = x.reshape(-1, H)
        y = self.gru(self.attend(x).reshape(-1, H), rows)
        h, c = self.lstm(rows, (y, rows))
        h, c = self.bare(y, (h, c))
        y = self.plain(h, y) + self.relu(c, self.tanh(rows, y))
        return token_loss(self.head(y).unflatten(0, (-1, ids.shape[1])), labels)


@case("ids", "labels")
class HalfProducts(Block):
    """Products that autocast casts though it knows no op of their name.

    All numbers are small enough to be exact in bf16, on any number of ranks and in the reference.
    """

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(4).flatten())
        self.pair = nn.Parameter(torch.eye(4).repeat(2, 1).flatten())
        self.cell = nn.RNNCell(4, 4, nonlinearity="relu")
        with torch.no_grad():
            self.cell.weight_ih.copy_(torch.eye(4))
            self.cell.weight_hh.copy_(torch.eye(4))
            self.cell.bias_ih.fill_(1.0)
            self.cell.bias_hh.fill_(1.0)

    def forward(self, ids, labels):
        place = torch.cumsum(torch.ones_like(ids), 1) - 1
        x = (place % 3 + 1).to(self.matrix.dtype)[..., None].expand(-1, -1, 4)
        matrix, pair = self.matrix.view(4, 4), self.pair.view(2, 4, 4)
        with torch.autocast("cpu", torch.bfloat16):
            y = torch.einsum("bsh,hk->bsk", x, matrix)
            y = y + torch.einsum("bsi,gio,go->bso", x, pair, matrix[:2])
            y = y + x @ torch.tensordot(matrix, matrix, 1)
            y = y + x @ torch.linalg.multi_dot([matrix, matrix, matrix])
            y = y + self.cell(y.flatten(0, 1), x.flatten(0, 1)).view_as(y)
        loss = token_loss(self.head(self.embed(ids)), labels)
        return loss + (y.to(x.dtype) * (place % 4 == 0)[..., None]).sum() / 64


@case("ids", "labels")
class InfinitiesOfConstants(Block):
    """Infinities made of constants, chosen or looked up where tokens say so; groups without eps."""

    def __init__(self):
        super().__init__()
        infinity = float("inf")
        self.register_buffer("zero", torch.tensor(0.0))
        self.register_buffer("infinity", torch.tensor(infinity))
        self.register_buffer("mixed", torch.tensor([0.0, -infinity] * (H // 2)))

    def masks(self, x, low):
        """Each is minus infinity where `low` holds, and a number elsewhere."""
        yield torch.where(low, float("-inf"), 0.0)
        yield torch.where(low, -self.infinity, self.zero)
        yield torch.where(low, self.mixed[1], self.zero.exp())
        yield torch.where(low, self.zero.log() + x, self.zero)
        yield torch.where(low, torch.ones_like(x) * float("-inf"), x)
        yield torch.stack([self.zero, -self.infinity])[low.long()]
        yield self.mixed.expand_as(x).gather(-1, low.long())

    def forward(self, ids, labels):
        x = self.embed(ids)
        low = x < x.mean(-1, keepdim=True)
        weights = sum((x + mask).softmax(-1) for mask in self.masks(x, low))
        normed = F.group_norm(x.flatten(0, 1), 2, self.o.bias, None, 0.0).view_as(x)
        return token_loss(self.head(x * weights + 0.1 * normed), labels)


@case("ids", "labels")
class ScalesOfDistributions(Block):
    """Logarithms, roots and inverses of what padding holds too, or of shares of all tokens."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        scale = self.o.bias.exp()
        density = torch.distributions.Normal(x, scale, validate_args=False).log_prob(x.flip(-1))
        stretched = scale.expand_as(x)
        powers = stretched.rsqrt() + stretched**-1.5 + stretched**self.v.bias + 1 / stretched
        positive = F.softplus(x)
        shares = positive / positive.sum(1, keepdim=True)
        entropy = shares * shares.log() + (1 / shares).log1p() + shares.sqrt() - shares**-0.3
        ratios = (positive + scale).log() + torch.logit(shares) + torch.acos(shares)
        angles = torch.atan2(x, scale) * torch.hypot(x, stretched)
        shared = scale**x + torch.xlogy(x, scale)
        terms = density + powers * x + entropy + ratios + angles + shared
        return token_loss(self.head(0.1 * terms), labels)


@case("ids", "labels")
class CutsInTwoWays(Block):
    """Means of pairs and of triples of 24 features: parts of one dimension that share no cut."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(H, 24)
        self.narrow = nn.Linear(24, H)

    def forward(self, ids, labels):
        x = self.embed(ids)
        wide = self.wide(self.attend(x))
        pairs, triples = (
            wide.unflatten(-1, (-1, size)).square().mean(-1).repeat_interleave(size, -1)
            for size in (2, 3)
        )
        mixed = pairs * triples + torch.stack([pairs, wide, triples], 2).softmax(2)[:, :, 0]
        both = torch.cat([triples, pairs], 1)[:, : ids.shape[1]]
        return token_loss(self.head(x + self.narrow(mixed - both)), labels)
