"""Networks that multiply spectra."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .row import Batch, Row, adamw


class Spectral(nn.Module):
    """The lowest modes of images [B, C, H, W] times complex weights (Li et al., Fourier Neural
    Operator for Parametric Partial Differential Equations)."""

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        shape = (channels, channels, modes, modes)
        self.low = nn.Parameter(torch.randn(shape, dtype=torch.cfloat) / channels)
        self.high = nn.Parameter(torch.randn(shape, dtype=torch.cfloat) / channels)
        self.modes = modes

    def forward(self, x: Tensor) -> Tensor:
        m, product = self.modes, "bixy,ioxy->boxy"
        spectrum = torch.fft.rfft2(x)
        out = torch.zeros_like(spectrum)
        out[:, :, :m, :m] = torch.einsum(product, spectrum[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum(product, spectrum[:, :, -m:, :m], self.high)
        return torch.fft.irfft2(out, s=x.shape[-2:])


class NeuralOperator(nn.Module):
    """Fields [B, 2, H, W] and what they become [B, 1, H, W]: the mean squared error"""

    def __init__(self, channels: int = 4, modes: int = 3, layers: int = 1) -> None:
        super().__init__()
        self.lift = nn.Conv2d(2, channels, 1)
        self.spectral = nn.ModuleList(Spectral(channels, modes) for _ in range(layers))
        self.skip = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(layers))
        self.project = nn.Conv2d(channels, 1, 1)

    def forward(self, fields: Tensor, target: Tensor) -> Tensor:
        x = self.lift(fields)
        for spectral, skip in zip(self.spectral, self.skip, strict=True):
            x = functional.gelu(spectral(x) + skip(x))
        return (self.project(x) - target).square().mean()


def _fields() -> Batch:
    return {"fields": torch.randn(2, 2, 24, 30), "target": torch.randn(2, 1, 24, 30)}


ROWS = (Row("Fourier neural operator", "Fourier", lambda: NeuralOperator(8, 6, 2), _fields, adamw),)
