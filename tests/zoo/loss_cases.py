"""Cases of losses: weights, smoothing, reductions, shapes, and what is no cross entropy.

B batch, S sequence, H hidden, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import CONTEXT, H, IGNORE_INDEX, V, Block, case, token_loss


class Logits(Block):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.linspace(0.25, 2, V))

    def logits(self, ids):
        return self.head(self.attend(self.embed(ids)))


@case("ids", "labels")
class ClassWeights(Logits):
    """The mean divides by the weights of the valid tokens, over all ranks."""

    def forward(self, ids, labels):
        return token_loss(self.logits(ids), labels, weight=self.weight)


@case("ids", "labels")
class LabelSmoothing(Logits):
    def forward(self, ids, labels):
        return token_loss(self.logits(ids), labels, label_smoothing=0.1)


@case("ids", "labels")
class WeightedSmoothing(Logits):
    def forward(self, ids, labels):
        return token_loss(self.logits(ids), labels, weight=self.weight, label_smoothing=0.2)


@case("ids", "labels")
class LossSum(Logits):
    def forward(self, ids, labels):
        return 0.01 * token_loss(
            self.logits(ids), labels, weight=self.weight, label_smoothing=0.1, reduction="sum")


@case("ids", "mask", "labels")
class LossNone(Logits):
    """A loss per token, weighted and averaged by the user."""

    def forward(self, ids, mask, labels):
        losses = token_loss(self.logits(ids), labels, label_smoothing=0.1, reduction="none")
        weight = (mask * (labels != IGNORE_INDEX)).to(losses.dtype).flatten()
        return (losses * weight).sum() / weight.sum()


@case("ids", "labels")
class PairsCounted(Logits):
    """All pairs of tokens, divided by how many of them count, in the whole batch."""

    def forward(self, ids, labels):
        score = self.logits(ids)[..., 0]
        counts = labels[:, :, None] > labels[:, None]
        losses = F.softplus(1 - score[:, None] * score[:, :, None])
        return (losses * counts).sum() / counts.sum().clamp(min=1)


@case("ids", "mask", "positions", "labels")
class NamesOfInputs(Block):
    """A parameter and a buffer are called as inputs are."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(CONTEXT, H))
        self.register_buffer("mask", torch.linspace(0.5, 1.5, H))

    def forward(self, ids, mask, positions, labels):
        x = self.attend(self.embed(ids) + self.positions[positions]) * self.mask
        losses = token_loss(self.head(x), labels, reduction="none")
        weight = mask.to(losses.dtype).flatten()
        return (losses * weight).sum() / weight.sum()


@case("ids", "labels")
class IgnoreZero(Logits):
    def forward(self, ids, labels):
        return token_loss(self.logits(ids), labels.clamp(min=0), ignore_index=0)


@case("ids", "labels")
class IgnorePositive(Logits):
    def forward(self, ids, labels):
        labels = labels.masked_fill(labels < 0, 5)
        return token_loss(self.logits(ids), labels, ignore_index=5, weight=self.weight)


@case("ids", "labels")
class ClassesSecond(Logits):
    """Logits as [B, V, S]."""

    def forward(self, ids, labels):
        return F.cross_entropy(self.logits(ids).transpose(1, 2), labels)


@case("ids", "labels")
class ClassesSecondOfFour(Logits):
    """Logits as [B, V / 2, S, 2], one loss each."""

    def forward(self, ids, labels):
        logits = self.logits(ids).unflatten(-1, (V // 2, 2)).transpose(1, 2)
        target = (labels.clamp(min=0) % (V // 2))[..., None].expand(-1, -1, 2)
        return F.cross_entropy(logits, target, reduction="none").square().mean()


@case("ids", "classes")
class Unbatched(Logits):
    """Logits as [V], one target."""

    def forward(self, ids, classes):
        return F.cross_entropy(self.logits(ids).mean((0, 1)), classes[0])


@case("ids", "labels")
class WeighedLosses(Logits):
    """Losses with trained weights, a penalty of weights, a number: none is a sum over tokens."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.linspace(-0.5, 0.5, 3))

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        loss = token_loss(self.head(x), labels)
        overlap = 1 - (x.tanh() * x).mean()
        weighed = torch.exp(-self.weights[0]) * loss + self.weights[0]
        both = torch.stack([overlap, x.abs().mean()]) * self.weights[1:] - self.weights[1:]
        usual = (x.mean(0) * 0.5).mean()  # of each place, while its tokens are split
        return weighed + both.sum() + usual + 0.01 * self.head.weight.norm() + 0.25


@case("ids", "classes")
class StretchedLogits(Logits):
    """One row of logits for all sequences; two sums over the batch, where a rank may have one."""

    def forward(self, ids, classes):
        logits = self.logits(ids)
        same = logits.mean((0, 1)).expand(logits.shape[0], V)
        sums = logits.sum(0) + logits.sum(0).sigmoid()
        return F.cross_entropy(same, classes) + sums.square().mean()


@case("ids", "features")
class ProbabilityTargets(Logits):
    def forward(self, ids, features):
        hidden = self.attend(self.embed(ids))
        return F.cross_entropy(hidden.flatten(0, 1), features.softmax(-1).flatten(0, 1),
                               weight=self.weight[:H], label_smoothing=0.1)


@case("ids", "labels")
class NegativeLogLikelihood(Logits):
    """Log-softmax and the likelihood apart."""

    def forward(self, ids, labels):
        return F.nll_loss(F.log_softmax(self.logits(ids), -1).view(-1, V), labels.view(-1))


@case("ids", "labels")
class NegativeLogLikelihoodNd(Logits):
    def forward(self, ids, labels):
        log_p = F.log_softmax(self.logits(ids).transpose(1, 2), 1)
        return F.nll_loss(log_p, labels, weight=self.weight)


@case("ids", "labels")
class NegativeLogLikelihoodTurned(Logits):
    """Classes moved to dimension 1 after the log-softmax; other logarithms, weighted."""

    def forward(self, ids, labels):
        logits = self.logits(ids)
        loss = F.nll_loss(logits.log_softmax(-1).transpose(1, 2), labels)
        others = torch.log(0.5 * logits.softmax(-1) + 0.5 / V).flatten(0, 1)
        return loss + F.nll_loss(others, labels.flatten(), self.weight)


@case("ids", "features")
class BinaryCrossEntropy(Logits):
    def forward(self, ids, features):
        hidden = self.attend(self.embed(ids))
        target = features.sigmoid()
        plain = F.binary_cross_entropy_with_logits(hidden, target)
        return plain + F.binary_cross_entropy_with_logits(
            hidden, target, weight=self.weight[:H], pos_weight=self.weight[:H])


@case("ids", "features", "mask")
class ProbabilityLoss(Logits):
    """Of probabilities, among them 0 and 1; per element and weighted, summed, and its mean."""

    def forward(self, ids, features, mask):
        hidden = self.attend(self.embed(ids))
        target = features.sigmoid()
        share = hidden.sigmoid().masked_fill(hidden > 1, 1.0).masked_fill(hidden < -1, 0.0)
        losses = F.binary_cross_entropy(hidden.sigmoid(), target, reduction="none")
        per_token = (losses.mean(-1) * mask).sum() / mask.sum()
        total = F.binary_cross_entropy(share, target, weight=self.weight[:H], reduction="sum")
        return per_token + 0.01 * total + F.binary_cross_entropy(share, target)


@case("ids", "features")
class KlDivergence(Logits):
    """The target as it is, with zeros, and as its logarithm."""

    def forward(self, ids, features):
        log_p = F.log_softmax(self.attend(self.embed(ids)), -1)
        target = features.clamp(min=0)
        plain = F.kl_div(log_p, target, reduction="batchmean")
        return plain + F.kl_div(log_p, features.log_softmax(-1), reduction="sum", log_target=True)


@case("ids", "features")
class RobustLosses(Logits):
    def forward(self, ids, features):
        hidden = self.attend(self.embed(ids))
        loss = F.l1_loss(hidden, features) + F.smooth_l1_loss(hidden, features, beta=0.7)
        loss = loss + F.huber_loss(hidden, features, delta=1.5)
        return loss + F.smooth_l1_loss(hidden, features, reduction="none").amax(-1).mean()


@case("ids", "mask", "labels")
class CountsOfTheBatch(Logits):
    """A sum over the batch alone, of all micro-steps: read per token, and whole by a scan."""

    def forward(self, ids, mask, labels):
        x = self.attend(self.embed(ids))
        count = mask.sum(0).to(x.dtype)
        scale = 1 / count + count.cumsum(0) / count.sum()
        return token_loss(self.head(x * scale[None, :, None]), labels)


@case("ids", "labels")
class SlicedProbabilities(Logits):
    """Logarithms of probabilities of the next tokens, gathered by hand, and their mean."""

    def forward(self, ids, labels):
        chosen = self.logits(ids)[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
        valid = labels[:, 1:] != IGNORE_INDEX
        return -(chosen.squeeze(-1) * valid).sum(1).mean() / 4 - chosen.mean()


@case("ids", "labels")
class SlicedInputs(Logits):
    """All but the last token in, all but the first out; the token after the next beside it."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids[:, :-1]))
        later = F.cross_entropy(
            self.head(x[:, :-1].tanh()).transpose(1, 2), ids[:, 2:], reduction="none")
        return token_loss(self.head(x), labels[:, 1:], label_smoothing=0.1) + later.sum(1).mean()


@case("ids", "labels")
class SlicedBothWays(Logits):
    """A layer between tokens that looks both ways stands in for what must not see a cut token."""

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids)[:, 1:], is_causal=False)
        pooled = x.mean(1, keepdim=True) + x.amax(1, keepdim=True)
        return token_loss(self.head(x + pooled), labels[:, 1:])


@case("ids", "labels", folder="draws")
class StochasticDepth(Block):
    """Whole branches dropped out, as transformers and timm write it, and tokens by a comparison."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        sizes = (x.shape[0], 1, 1)
        kept = 0.6 + torch.rand(sizes)
        kept.floor_()
        x = x + self.q(x).tanh().div(0.6) * kept
        x = x + self.v(x).tanh() * x.new_empty(sizes).bernoulli_(0.6).div_(0.6)
        x = self.attend(x * (torch.rand(ids.shape) < 0.8)[..., None])
        return token_loss(self.head(x), labels)


@case("ids", "labels", folder="draws")
class Noise(Block):
    """What models draw besides: jitter, noise, Gumbel softmax, random labels, dropped channels."""

    def forward(self, ids, labels):
        x = self.embed(ids)
        x = x * torch.empty_like(x).uniform_(0.9, 1.1) + 0.1 * torch.randn_like(x)
        gates = F.gumbel_softmax(self.q(x), tau=2.0)
        x = x + gates * self.v(x) + 0.05 * torch.randn(ids.shape)[..., None]
        x = x + torch.empty(x.shape).normal_(0.1, 0.2) * self.o(x)
        x = x * torch.bernoulli(x.detach().sigmoid()) + self.embed(torch.randint(2, V, ids.shape))
        x = F.dropout1d(self.attend(x).transpose(1, 2), 0.2).transpose(1, 2)
        r = torch.rand(ids.shape)
        x = torch.where((r < 0.3)[..., None], x * 0.5, x) + r[..., None]
        return token_loss(self.head(F.dropout(x + 0, 0.1, inplace=True)), labels)


@case("ids", folder="verified")
class RewardsApart(Block):
    """Rewards are held against each other: what a bias adds to all of them has no gradient.

    Features are small, so that the terms which cancel there are large beside other gradients.
    """

    def forward(self, ids):
        reward = self.head(self.attend(self.embed(ids)) / 32).mean((1, 2))
        return -F.logsigmoid(reward - reward.roll(1, 0)).mean()


@case("ids", "features", folder="verified")
class AdvantagesOfSums(Block):
    """Rewards are sums over tokens, large beside what they differ by, and advantages add up to 0:
    the loss is what rounding leaves."""

    def forward(self, ids, features):
        log_p = self.head(self.attend(self.embed(ids))).log_softmax(-1)[..., 0]
        reward = (features + 4).square().sum((1, 2))
        advantage = reward - reward.mean()
        return -((log_p - log_p.detach()).exp() * advantage[:, None]).mean()


@case("ids")
class SequencesCompared(Block):
    """The reward of each sequence, a sum over tokens, against that of the one before it."""

    def forward(self, ids):
        reward = self.k(self.attend(self.embed(ids))).square().mean((1, 2))
        return -F.logsigmoid(reward - reward.roll(1, 0)).mean()


@case("ids", "classes")
class SequencesOfOneClass(Block):
    """Pairs of sequences that inputs alone make, counted and averaged: contrastive learning with
    labels, and a ranking."""

    def forward(self, ids, classes):
        x = F.normalize(self.head(self.attend(self.embed(ids))).mean(1), dim=-1)
        same = (classes[:, None] % 2 == classes % 2).float()
        pairs = x @ x.T * 4
        log_p = pairs - pairs.exp().sum(1, keepdim=True).log()
        above = (classes[:, None] > classes).float()
        ranked = (x.sum(1) * (above.mean(1) - above.sum(0)) * (1 + same.sum())).mean()
        return ranked / 8 - ((same * log_p).sum(1) / same.sum(1)).mean()


@case("ids", "features", shape=(8, 8))
class GroupsOfSequences(Block):
    """Pairs of answers to one prompt: advantages within a pair, of rewards that are inputs, and a
    softmax of scores. Two ranks cut the second of three pairs."""

    static = True
    few = 6

    def forward(self, ids, features):
        score = self.head(self.attend(self.embed(ids))).square().mean((1, 2))
        score = score - score.mean() / 2
        reward = features[:, 0, 0].view(-1, 2)
        advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 0.1)
        pairs = score.view(-1, 2)
        preferred = (pairs.softmax(1) * pairs.square()).sum(1)
        return (score * advantage.view(-1)).mean() + preferred.mean()


@case("ids")
class DivergenceOfScores(Block):
    """Scores of all pairs of tokens, hidden for some keys: logarithms of their softmax, cut to a
    constant before what is hidden, and the divergence of two of them."""

    def forward(self, ids):
        x = self.attend(self.embed(ids))
        hidden = torch.arange(ids.shape[1], device=ids.device) % 7 == 3
        scores = [(each(x) @ x.transpose(1, 2)).masked_fill(hidden, -torch.inf)
                  for each in (self.q, self.k)]
        p, q = (each.log_softmax(-1)[..., :3] for each in scores)
        return F.kl_div(q, p, reduction="batchmean", log_target=True) - (p + q).mean()


@case("ids", "labels")
class ChunksOfTokens(Logits):
    """Losses and a layer in chunks of flattened tokens, which end inside of sequences."""

    static = True

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids)).flatten(0, 1)
        x = torch.cat([part + F.gelu(self.o(part)) for part in x.chunk(3)])
        labels = labels.flatten()
        loss = 0
        for part, target in zip(x.chunk(4), labels.chunk(4)):
            loss = loss + F.cross_entropy(
                self.head(part).float(), target, ignore_index=IGNORE_INDEX, reduction="sum")
        scores = [self.head(part).logsumexp(-1).square().sum() for part in x.chunk(2)]
        return (loss + 1e-2 * torch.stack(scores).sum()) / (labels != IGNORE_INDEX).sum()
