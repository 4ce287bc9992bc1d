"""Graphs with Fourier transforms, for export_cases.py."""

import torch
from torch import fft, nn


class Fourier(nn.Module):
    """Transforms of one and two dimensions, of more places and fewer, with each norm."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        S = x.shape[1]
        z = fft.rfft(x * self.weight, n=2 * S, norm="ortho")
        y = fft.irfft(z * fft.rfft(x, n=2 * S), n=2 * S, norm="forward")[:, :S]
        w = fft.ifft2(fft.fft(x[None], n=6)[..., :4], norm="backward")
        return y.sum() + fft.ihfft(x, n=4).abs().sum() + w.real.sum()


class ShortTimeFourier(Fourier):
    """torch.stft, whose length is always a constant."""

    def forward(self, x):
        z = torch.stft(x * self.weight, 4, 2, window=torch.hann_window(4), center=False,
                       normalized=True, return_complex=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = x @ (x.T * self.weight)
            w = torch.stft(y.flatten(), 4, 2, window=torch.ones(4), center=False,
                           return_complex=True)
        return z.abs().sum() + w.abs().sum()


class RefusedFourier(Fourier):
    def forward(self, x):
        window = torch.ones(4)
        z = torch.stft(x * self.weight, 4, 2, window=window, return_complex=True)
        return torch.istft(z, 4, 2, window=window).square().sum()


class FourierShifts(Fourier):
    """Shifts and frequencies, which are left for a pass; transforms back of real numbers."""

    def forward(self, x):
        z = fft.fftshift(fft.fft(x * self.weight, dim=1), dim=1) * fft.fftfreq(3)[:, None]
        y = fft.irfft(fft.ifftshift(x), n=6, dim=0) + fft.rfftfreq(10)[:, None].sum()
        return fft.ifftshift(z).abs().sum() + y.sum()


class ComplexSigns(Fourier):
    """A graph that takes an angle, in which zeros have PyTorch's signs; writes, and choices."""

    def forward(self, x):
        z = fft.rfft(x * self.weight)
        z = 1 - z * x[:, :5] + 2 / z
        z[:, 1:].mul_(2j)
        y = torch.where(x[:, :5] > 0, z, 1 - 2j) + z.masked_fill(x[:, :5] > 0, 0)
        y = y + nn.functional.pad(z.gather(1, torch.tensor([[1, 2]] * 3)), (2, 1))
        return y.angle().sum()


X = torch.linspace(-1, 1, 24).reshape(3, 8)
CASES = {
    "fourier": (Fourier, (X,), {"x": {1: torch.export.Dim("s", min=8)}}),
    "short_time_fourier": (ShortTimeFourier, (X,), {}),
    "fourier_shifts": (FourierShifts, (X,), {"x": {1: torch.export.Dim("s", min=8)}}),
    "complex_signs": (ComplexSigns, (X,), {}),
    "refused_fourier": (RefusedFourier, (X,), {}),
}
