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
        return z.abs().sum()


class RefusedFourier(Fourier):
    def forward(self, x):
        return fft.fftshift(x * self.weight, 1).square().sum()


X = torch.linspace(-1, 1, 24).reshape(3, 8)
CASES = {
    "fourier": (Fourier, (X,), {"x": {1: torch.export.Dim("s", min=8)}}),
    "short_time_fourier": (ShortTimeFourier, (X,), {}),
    "refused_fourier": (RefusedFourier, (X,), {}),
}
