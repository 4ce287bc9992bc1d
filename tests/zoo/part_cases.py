"""Cases of models that are exported in several archives, which a job lists in order.

A case is a module of the whole model, whose loss and gradients are the reference, with `parts()`:
(file, module, names of its inputs) in the order in which they run. Weights have the names that they
have in the whole.
"""

import torch
import torch.nn.functional as F
from torch import nn

from case_modules import SHAPES, Block, H, V, case, token_loss

SHAPES["frequencies"] = ("batch", "seq", 5, 2)  # a result of a part


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, H)

    def forward(self, ids):
        return self.embed(ids) + torch.arange(ids.shape[1])[:, None] / 8


class Attention(Block):
    """Gives a loss of its own beside what it computes."""

    def __init__(self):
        super().__init__()
        del self.embed, self.head

    def forward(self, hidden, mask):
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4)
        hidden = self.attend(hidden, bias)
        return hidden, hidden.pow(2).mean()


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(H, V)

    def forward(self, hidden, penalty, labels, mask):
        hidden = hidden * mask[..., None]
        return token_loss(self.head(hidden), labels) + 0.1 * penalty


class Part(nn.Module):
    """A submodule under its name in the whole; the inputs are those of its forward."""

    def __init__(self, name, module):
        super().__init__()
        self.name = name
        setattr(self, name, module)


class EmbeddingPart(Part):
    def forward(self, ids):
        return getattr(self, self.name)(ids)


class AttentionPart(Part):
    def forward(self, hidden, mask):
        return getattr(self, self.name)(hidden, mask)


class HeadPart(Part):
    def forward(self, hidden, penalty, labels, mask):
        return getattr(self, self.name)(hidden, penalty, labels, mask)


@case("ids", "labels", "mask")
class SeveralArchives(nn.Module):
    """Three parts: outputs without names go to the next part in order, and the
    mask is one input of three."""

    def __init__(self):
        super().__init__()
        self.front = Embedding()
        self.first = Attention()
        self.back = Head()

    def forward(self, ids, labels, mask):
        hidden, penalty = self.first(self.front(ids), mask)
        return self.back(hidden, penalty, labels, mask)

    def parts(self):
        return [("1_front", EmbeddingPart("front", self.front), ["ids"]),
                ("2_first", AttentionPart("first", self.first), ["hidden", "mask"]),
                ("3_back", HeadPart("back", self.back), ["hidden", "penalty", "labels", "mask"])]


class NamedEmbedding(Embedding):
    """Returns a view whose sequence is first, and a constant of its own."""

    def forward(self, ids):
        slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
        return {"slopes": slopes, "hidden_sb": super().forward(ids).transpose(0, 1)}


class TiedAttention(Block):
    def __init__(self):
        super().__init__()
        del self.embed

    def forward(self, labels, slopes, hidden_sb):
        hidden = hidden_sb.transpose(0, 1)
        place = torch.arange(hidden.shape[1])
        distance = (place[None, :] - place[:, None]).to(hidden.dtype)
        bias = (slopes * torch.tensor([1.0, 2.0, 3.0, 4.0]))[:, None, None] * distance
        bias = bias.masked_fill(place[None, :] > place[:, None], float("-inf"))
        return token_loss(self.head(self.attend(hidden, bias[None])), labels)


@case("ids", "labels")
class TiedArchives(nn.Module):
    """The head of the second archive is the embedding of the first; outputs have names, and both
    archives have a constant that export gave the same name."""

    def __init__(self):
        super().__init__()
        self.front = NamedEmbedding()
        self.back = TiedAttention()
        self.back.head.weight = self.front.embed.weight

    def forward(self, ids, labels):
        return self.back(labels, **self.front(ids))

    def parts(self):
        class BackPart(Part):
            def forward(self, labels, slopes, hidden_sb):
                return self.back(labels, slopes, hidden_sb)

        return [("1_front", EmbeddingPart("front", self.front), ["ids"]),
                ("2_back", BackPart("back", self.back), ["labels", "slopes", "hidden_sb"])]


class RealFrequencies(nn.Module):
    """The first and the last frequency are real, and so are half of the products."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.gate = nn.Linear(H, H)

    def forward(self, ids):
        x = self.embed(ids)
        z = torch.fft.rfft(self.gate(x))[..., [0, H // 2, 1]] * -0.5
        w = torch.complex(x[..., :2], x[..., :2] * 0) * torch.where(x[..., 2:4] > 0, -1.5, 2.0)
        return x, torch.view_as_real(torch.cat([z, w], -1))


class Angles(Block):
    def __init__(self):
        super().__init__()
        del self.embed

    def forward(self, hidden, frequencies, labels):
        angles = torch.atan2(frequencies[..., 1], frequencies[..., 0])
        hidden = hidden * (1 + angles.sum(-1, keepdim=True) / 4)
        return token_loss(self.head(self.attend(hidden)), labels)


@case("ids", "labels")
class AnglesOfParts(nn.Module):
    """The second archive takes angles of complex numbers that the first has made: zeros have the
    signs that PyTorch gives them."""

    def __init__(self):
        super().__init__()
        self.front = RealFrequencies()
        self.back = Angles()

    def forward(self, ids, labels):
        hidden, frequencies = self.front(ids)
        return self.back(hidden, frequencies, labels)

    def parts(self):
        class BackPart(Part):
            def forward(self, hidden, frequencies, labels):
                return self.back(hidden, frequencies, labels)

        return [("1_front", EmbeddingPart("front", self.front), ["ids"]),
                ("2_back", BackPart("back", self.back), ["hidden", "frequencies", "labels"])]
