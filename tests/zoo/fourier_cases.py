"""Cases of Fourier transforms, over tokens and over features."""

import math

import torch
import torch.nn.functional as F
from torch import fft, nn

from case_modules import H, N, Block, case
from token_cases import Mixer


@case("ids", "labels")
class HyenaConvolution(Mixer):
    """A convolution over all tokens so far (Hyena), by transforms of twice as many places: its
    kernel is made of positions, decays, and is gated."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, H))
        self.decay = nn.Parameter(torch.linspace(0.1, 0.6, H))
        self.skip = nn.Parameter(torch.randn(H))

    def mix(self, x):
        S = x.shape[1]
        t = torch.arange(S, device=x.device, dtype=x.dtype)[:, None]
        features = torch.cat([t / 32, torch.cos(t / 3), torch.sin(t / 3)], -1)
        kernel = (self.filter(features) * torch.exp(-t * self.decay)).transpose(0, 1)
        u = (self.q(x) * torch.sigmoid(self.k(x))).transpose(1, 2)
        spectrum = fft.rfft(kernel, n=2 * S) / (2 * S)
        y = fft.irfft(fft.rfft(u, n=2 * S) * spectrum, n=2 * S, norm="forward")[..., :S]
        return (y + u * self.skip[:, None]).transpose(1, 2)


@case("ids", "labels")
class StateSpaceKernel(Mixer):
    """S4D: the kernel is a sum of powers of complex numbers, zeros are put behind by hand."""

    def __init__(self):
        super().__init__()
        self.log_step = nn.Parameter(torch.linspace(-3, -1, H))
        self.log_decay = nn.Parameter(torch.full((H, 2), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(2).repeat(H, 1))
        self.c = nn.Parameter(torch.randn(H, 2, 2))

    def mix(self, x):
        S = x.shape[1]
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        step_a = a * self.log_step.exp()[:, None]
        powers = torch.exp(step_a[..., None] * torch.arange(S, device=x.device))
        c = torch.view_as_complex(self.c) * (torch.exp(step_a) - 1.0) / a
        kernel = 2 * torch.einsum("hn,hnl->hl", c, powers).real
        u = self.q(x).transpose(1, 2)
        y = fft.irfft(fft.rfft(F.pad(u, (0, S)), dim=-1) * fft.rfft(F.pad(kernel, (0, S))),
                      n=2 * S, dim=-1)
        return y[..., :S].transpose(1, 2)


@case("ids", "labels")
class FourierMixing(Mixer):
    """FNet: the real part of transforms over features and tokens, by one op and by two."""

    def mix(self, x):
        y = fft.fft(fft.fft(self.q(x), dim=-1), dim=-2).real
        z = fft.fft2(self.k(x), norm="ortho").imag
        return F.gelu(y / 8 + z)


@case("ids", "labels")
class StaticAutoCorrelation(Mixer):
    """Autoformer: how alike tokens are to those some places before, heads by heads, at a constant
    length, which follows; the angles of what is not zero."""

    static = True

    def mix(self, x):
        S = x.shape[1]
        q, k, v = (p(x).unflatten(-1, (N, -1)).permute(0, 2, 3, 1)
                   for p in (self.q, self.k, self.v))
        q_spectrum = fft.rfft(q.contiguous(), dim=-1)
        k_spectrum = fft.rfft(k.contiguous(), dim=-1)
        correlation = fft.irfft(q_spectrum * torch.conj(k_spectrum), n=S, dim=-1)
        phase = (fft.rfft(v, dim=-1) + 2.5).angle().mean(-1, keepdim=True)
        mixed = v * torch.softmax(correlation / 2, -1) + phase + q / 2
        return mixed.permute(0, 3, 1, 2).flatten(2)


@case("features", "ids")
class StaticSpectralLoss(Block):
    """A regression whose frequencies count too: differences of frequencies, and of moduli."""

    static = True

    def forward(self, features, ids):
        y = self.attend(self.embed(ids))
        difference = fft.rfft(y, dim=1, norm="ortho") - fft.rfft(features, dim=1, norm="ortho")
        of_features = fft.rfft(y).abs() - fft.rfft(features).abs()
        return F.mse_loss(y, features) + difference.abs().mean() + of_features.abs().mean() / 4


@case("ids", "labels")
class GlobalFilter(Mixer):
    """GFNet: frequencies of rows and columns of features times trained complex weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 2))

    def mix(self, x):
        y = self.q(x).unflatten(-1, (4, 4))
        z = fft.rfft2(y, dim=(2, 3), norm="ortho") * torch.view_as_complex(self.weight)
        return fft.irfft2(z, s=(4, 4), dim=(2, 3), norm="ortho").flatten(2)


@case("ids", "labels")
class FrequencyLayers(Mixer):
    """FreTS: layers over frequencies of features, in real and imaginary parts; few frequencies are
    kept (FITS)."""

    def __init__(self):
        super().__init__()
        self.re = nn.Parameter(torch.randn(9, 9) / 3)
        self.im = nn.Parameter(torch.randn(9, 9) / 3)

    def mix(self, x):
        z = fft.rfft(self.q(x), dim=-1, norm="ortho")
        re = F.relu(torch.einsum("bsf,fg->bsg", z.real, self.re)
                    - torch.einsum("bsf,fg->bsg", z.imag, self.im))
        im = F.relu(torch.einsum("bsf,fg->bsg", z.imag, self.re)
                    + torch.einsum("bsf,fg->bsg", z.real, self.im))
        y = torch.view_as_complex(F.softshrink(torch.stack([re, im], dim=-1), 0.01))
        low = torch.zeros_like(z)
        low[..., :5] = z[..., :5] * 1.5
        return fft.irfft(y + low, n=H, dim=-1, norm="ortho") + fft.ifft(y[..., :8], n=H).real


@case("ids", "labels")
class FourierForms(Mixer):
    """Each transform, of more and fewer places, and each norm."""

    def mix(self, x):
        S = x.shape[1]
        x, y, v = self.q(x), self.k(x), self.v(x)
        z = fft.ifft(x, dim=1) + fft.fft(y, n=S, dim=1, norm="forward")
        z = z + fft.fftn(v, dim=(1, 2), norm="ortho") + fft.ifft2(y) * 4
        z = z + fft.ifftn(fft.fftn(x, s=(S, 9), dim=(1, 2)), s=(S, H), dim=(1, 2), norm="ortho")
        r = fft.irfftn(fft.rfftn(y, s=(S + 3, 10), dim=(1, 2), norm="forward"), s=(S + 3, H),
                       dim=(1, 2), norm="forward")[:, :S]
        r = r + fft.irfft(fft.rfft(x, n=11), n=H)
        r = r + fft.irfft(fft.rfft(v, n=20, norm="forward"), n=H)
        h = fft.ihfft(y, norm="ortho")
        r = r + fft.hfft(h * 2, n=H) + fft.hfft(fft.ihfft(v, n=8), n=H, norm="forward") * 9
        return z.real / 4 + z.imag.tanh() + r


@case("ids", "labels")
class ComplexArithmetic(Mixer):
    """What is computed with complex numbers beside products: sums with real ones, quotients,
    exponentials, moduli and angles of zero too, choices, products of matrices."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 8, 2) / 3)

    def mix(self, x):
        pairs = self.q(x).unflatten(-1, (8, 2))
        z = torch.view_as_complex(pairs)
        w = (self.k(x)[..., :8] + 1j * self.v(x)[..., 8:]) * (0.5 - 2j) + 1.5
        m = torch.view_as_complex(self.matrix)
        y = z / (w + 2j) + 1 / (z + 3) - (2 - z) * 0.25
        y = y + torch.exp(z * 0.1j) + (3.0 - 1j) / (w + 4) + z**2 / 8 + w.square() / 9 - 1j
        y = y + z @ m + torch.einsum("bsi,ij->bsj", w, m) + (x[..., :8] + 0j) @ m / 2
        zero = torch.where((x[..., :8] > 0), z, torch.zeros_like(z))
        few = w.masked_fill(x[..., :8] < 0, 0)
        total = (zero.sum(-1, keepdim=True) + few.mean(-1, keepdim=True)) / 8
        y = y + total * (x[..., :8] + 0j)
        return torch.cat([y.real + zero.abs() + few.angle(), y.imag + zero.angle()], -1)


@case("ids", "labels")
class ShortTimeTransform(Mixer):
    """Frequencies of windows of tokens, of each channel, in a loss: windows that overlap, and
    windows side by side."""

    auto = True

    def forward(self, ids, labels):
        x = self.attend(self.embed(ids))
        channels = self.q(x)[..., :4].transpose(1, 2)
        window = torch.hann_window(4, device=x.device, dtype=x.dtype)
        z = fft.rfft(channels.unfold(-1, 4, 2) * window, norm="ortho")
        y = fft.rfft(channels.unfold(-1, 4, 4) * window)
        penalty = z.abs().sum() / z.shape[2] + (y.abs() + 0.1).log().sum() / y.shape[2]
        loss = F.cross_entropy(self.head(x).flatten(0, 1), labels.flatten())
        return loss + penalty / (16 * x.shape[0])


@case("ids", "labels")
class SignsOfZeros(Mixer):
    """Angles of numbers without an imaginary part are 0, pi or -pi, as PyTorch's kernels have the
    sign of zero: after products, quotients, sums and differences with real numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("signs", torch.tensor([1, -1] * 4), persistent=False)

    def mix(self, x):
        z = torch.view_as_complex(self.q(x).unflatten(-1, (8, 2)))
        gates = torch.where(self.v(x)[..., :8] > 0, -1.5, 2.0)
        turned = (z.masked_fill(x[..., :8] > 0, 0) * gates).angle()
        y = (fft.rfft(self.k(x)) * -0.5)[..., [0, 8]]  # real
        w = 1 - fft.rfft(self.v(x))[..., :8]
        angles = (w * (2 * gates)).angle() + (2 / w - z.real).angle() + (w / gates).angle()
        w = torch.complex(z.real, x[..., :8] * 0)
        angles = angles + (w / (w + 3)).angle() + (1 / w).angle() + (3 - w).angle()
        angles = angles + ((2 - 1j) * x[..., :8] * self.signs).angle() + (-2 * w / 1j).angle()
        v = (z - z.real) * 2 + 1
        few = torch.atan2((-2 * v).imag, (-2 * v).real) + (w + z - z).angle() + turned
        return x * ((angles + few).mean(-1, keepdim=True) / 4 + y.angle().sum(-1, keepdim=True))


@case("ids", "labels")
class ShortFilters(Mixer):
    """Filters of a few taps, transformed at as many places as there are tokens, and twice that."""

    auto = True

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(H, 3) / 2)

    def mix(self, x):
        S = x.shape[1]
        u, v = self.q(x).transpose(1, 2), self.k(x).transpose(1, 2)
        around = fft.irfft(fft.rfft(u, n=S) * fft.rfft(self.filter, n=S), n=S)
        causal = fft.irfft(fft.rfft(v, n=2 * S) * fft.rfft(self.filter, n=2 * S), n=2 * S)
        return (around + causal[..., :S]).transpose(1, 2)


@case("ids", "labels")
class ChosenModes(Mixer):
    """FEDformer and FNO: some frequencies of tokens, by index and by slice, times trained complex
    matrices, are written to a spectrum of zeros."""

    auto = True

    def __init__(self):
        super().__init__()
        self.modes = nn.Parameter(torch.randn(N, 4, 4, 3, 2) / 4)
        self.low = nn.Parameter(torch.randn(H, H, 3, 2) / 8)

    def mix(self, x):
        S = x.shape[1]
        z = fft.rfft(self.q(x).unflatten(-1, (N, -1)).permute(0, 2, 3, 1))
        modes, low = torch.view_as_complex(self.modes), torch.view_as_complex(self.low)
        chosen = torch.zeros(x.shape[0], N, 4, S // 2 + 1, dtype=z.dtype)
        for i, frequency in enumerate((0, 2, 3)):
            chosen[..., i] = torch.einsum("bhi,hio->bho", z[..., frequency], modes[..., i])
        y = fft.rfft(self.k(x).transpose(1, 2))
        y = torch.einsum("bix,iox->box", y[:, :, :3], low)
        y = fft.irfft(F.pad(y, (0, S // 2 - 2)), n=S)
        return fft.irfft(chosen, n=S).permute(0, 3, 1, 2).flatten(2) + y.transpose(1, 2)


@case("ids", "labels")
class CauchyKernel(Mixer):
    """S4: the frequencies of a kernel are quotients of complex numbers at the roots of unity."""

    auto = True

    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(-1, 0.5, 2 * H).view(H, 2))
        self.frequency = nn.Parameter(math.pi * torch.arange(2.0).repeat(H, 1))
        self.p = nn.Parameter(torch.randn(H, 2, 2) / 2)
        self.b = nn.Parameter(torch.randn(H, 2, 2) / 2)
        self.c = nn.Parameter(torch.randn(H, 2, 2) / 2)
        self.log_step = nn.Parameter(torch.linspace(-3, -1, H))

    def mix(self, x):
        S = x.shape[1]
        step = self.log_step.exp()[:, None]
        a = (torch.complex(-self.decay.exp(), self.frequency) * step)[..., None]
        p, b, c = (torch.view_as_complex(v) for v in (self.p, self.b, self.c))
        t = torch.arange(S // 2 + 1, device=x.device, dtype=x.dtype)
        omega = torch.exp(-2j * math.pi * t / S)
        z = 2 * (1 - omega) / (1 + omega + 0.01)

        def cauchy(v):
            v = v[..., None]
            return (v / (z - a) + v.conj() / (z - a.conj())).sum(-2)

        k = cauchy(c * b) - cauchy(c * p.conj()) * cauchy(p * b) / (1 + cauchy(p * p.conj()))
        kernel = fft.irfft(k * 2 / (1 + omega + 0.01) * step, n=S)
        u = self.q(x).transpose(1, 2)
        y = fft.irfft(fft.rfft(u, n=2 * S) * fft.rfft(kernel, n=2 * S), n=2 * S)
        return y[..., :S].transpose(1, 2)


@case("ids", "labels")
class ShiftedFrequencies(Mixer):
    """Shifts of two dimensions and of one, frequencies by number, and transforms back of what is
    real (cepstra)."""

    auto = True

    def mix(self, x):
        S = x.shape[1]
        z = fft.fftshift(fft.fft(self.q(x), dim=1), dim=1) * (1 + 0.1j)
        z = fft.ifft(fft.ifftshift(z + fft.fftshift(z, dim=(1, 2)), dim=(1,)), dim=1)
        y = fft.fftshift(self.k(x), dim=1) * x
        y = y + fft.ifft(fft.fft(y) * fft.fftfreq(H, d=0.5)).imag
        y = y + fft.irfft(fft.rfft(y)[..., :5] * fft.rfftfreq(9)[:5].exp(), n=H)
        v = fft.rfft(self.v(x), dim=1).abs().add(0.1).log()
        return z.real + y + fft.irfft(v, n=S, dim=1) + fft.hfft(x[..., :9], n=H)


@case("ids", "labels")
class ComplexWrites(Mixer):
    """What is written to complex tensors and parts of them, chosen, gathered, summed up, padded."""

    def mix(self, x):
        z = fft.rfft(self.q(x))
        y = z * 1
        y.mul_(2).add_(1)
        y *= 1 + 2j
        y -= self.v(x)[..., :9]
        y[..., 3:5] /= 3
        y[..., 5:7] = 0
        y[..., 7] = 1.5
        y[..., 8] = self.k(x)[..., 2].detach()
        y[..., 0].zero_()
        mask = self.v(x)[..., :9] > 0
        w = torch.where(mask, z, 0) + torch.where(mask, 1 - 2j, z) + z.masked_fill(mask, 0.5)
        index = torch.arange(0, 9, 2, device=x.device)
        few = z.gather(-1, index.expand(*x.shape[:2], -1)) + z.index_select(-1, index)
        w = w + F.pad(few, (1, 3)) + z.cumsum(-1) / 4 + z.cumsum(1) / 8
        return fft.irfft(y + torch.where(mask, w, 1j), n=H)


@case("ids", "labels")
class StaticShifts(Mixer):
    """fftshift, ifftshift and fftfreq of a constant length are those of the job's."""

    static = True

    def mix(self, x):
        frequencies = fft.fftfreq(x.shape[1], d=0.5)
        z = fft.fft(self.q(x), dim=1) * torch.exp(-frequencies.square())[:, None]
        z = fft.fftshift(z, dim=1) * (1 + fft.fftshift(frequencies)[None, :, None].abs())
        return fft.ifft(fft.ifftshift(z, dim=1), dim=1).real + fft.ifftshift(x, dim=(-1, 1))


@case("ids", "labels")
class HermitianTransforms(Mixer):
    """hfft2, ihfft2 and those of any dimensions: over tokens and features, with each norm."""

    def mix(self, x):
        S = x.shape[1]
        z = fft.ihfft2(self.q(x), dim=(1, 2)) * (1 + 0.3j)
        y = fft.hfft2(z, s=(S, H), dim=(1, 2))
        w = fft.ihfftn(self.k(x), dim=(1, 2), norm="ortho") * (0.5 - 1j)
        y = y + fft.hfftn(w, s=(S, H), dim=(1, 2), norm="ortho")
        return y + fft.hfft2(self.v(x)[..., :9], s=(S, H), dim=(1, 2), norm="forward")


@case("ids", "labels")
class ComplexLayers(Mixer):
    """F.linear of complex numbers, with a bias and without, and of real weights."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(6, 8, 2) / 3)
        self.shift = nn.Parameter(torch.randn(6, 2))
        self.down = nn.Parameter(torch.randn(8, 6, 2) / 3)

    def mix(self, x):
        z = torch.view_as_complex(self.q(x).unflatten(-1, (8, 2)))
        up, shift = torch.view_as_complex(self.up), torch.view_as_complex(self.shift)
        z = F.linear(z, up, shift)
        z = F.linear(z * z.abs(), torch.view_as_complex(self.down))
        return torch.view_as_real(z).flatten(2)
