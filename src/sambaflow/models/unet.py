"""The U-Net that comes with SambaFlow: four levels, batch norm, a sigmoid at the end.

After Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", 2015 (arXiv:1505.04597).
"""

from __future__ import annotations

import torch
from torch import nn

from sambaflow.samba.nn.module import Module

LEVELS = 4


def _block(in_channels: int, channels: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with batch norm and relu."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class UNet(Module):
    """f32[batch, in_channels, h, w] -> probabilities f32[batch, out_channels, h, w].

    h and w are multiples of 16.  The first level has `init_features` channels, each further one
    twice as many.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 1, init_features: int = 32
    ) -> None:
        super().__init__()
        widths = [init_features * 2**level for level in range(LEVELS + 1)]
        self.encoders = nn.ModuleList(
            _block(*pair) for pair in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = _block(*widths[-2:])
        self.upconvs = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(_block(2 * width, width) for width in reversed(widths[:-1]))
        self.conv = nn.Conv2d(init_features, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for upconv, decoder in zip(self.upconvs, self.decoders, strict=True):
            x = decoder(torch.cat([upconv(x), skips.pop()], dim=1))
        return torch.sigmoid(self.conv(x))
