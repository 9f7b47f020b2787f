"""Convolutions and pooling, over their options."""

from __future__ import annotations

import torch
from torch import nn

from tests.ops.against_eager import Case, Function

GENERATOR = torch.Generator().manual_seed(5)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def conv(name: str, module: nn.Module, *shape: int) -> Case:
    return Case(name, module, (normal(*shape),), rtol=1e-4, atol=1e-5)


def convolutions() -> list[Case]:
    return [
        conv("plain", nn.Conv2d(3, 5, 3), 2, 3, 7, 8),
        conv("padded", nn.Conv2d(4, 17, 3, padding=1), 2, 4, 6, 5),
        conv("step 2", nn.Conv2d(3, 8, 3, stride=2, padding=1), 2, 3, 9, 8),
        conv("step 2, rest", nn.Conv2d(3, 8, 3, stride=2), 2, 3, 8, 8),
        conv("step 3 over 2 taps", nn.Conv2d(3, 8, 2, stride=3), 2, 3, 9, 10),
        conv("dilated", nn.Conv2d(2, 6, 3, dilation=2, padding=2), 1, 2, 8, 9),
        conv("far taps", nn.Conv2d(3, 5, 3, dilation=12, padding=12), 2, 3, 4, 5),
        conv("some far taps", nn.Conv1d(3, 4, 5, dilation=2, padding=4), 2, 3, 3),
        conv(
            "far taps, depthwise", nn.Conv2d(9, 9, 3, dilation=6, padding=6, groups=9), 1, 9, 4, 4
        ),
        conv("far taps, step 3", nn.Conv2d(3, 6, 3, stride=3, padding=1), 2, 3, 1, 1),
        conv("padding only", nn.Conv1d(3, 4, 2, stride=9, padding=4), 2, 3, 1),
        conv("one tap", nn.Conv2d(9, 4, 1, bias=False), 2, 9, 4, 4),
        conv("one tap, step 2", nn.Conv2d(9, 4, 1, stride=2), 2, 9, 5, 4),
        conv("uneven", nn.Conv2d(3, 4, (3, 1), stride=(1, 2), padding=(2, 0)), 1, 3, 5, 7),
        conv("groups", nn.Conv2d(6, 8, 3, groups=2, padding=1), 2, 6, 5, 5),
        conv("groups, step 2", nn.Conv2d(4, 12, 3, groups=4, stride=2), 2, 4, 7, 7),
        conv("depthwise", nn.Conv2d(10, 10, 3, groups=10, padding=1), 2, 10, 6, 6),
        conv("depthwise, step 2", nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1), 2, 8, 7, 7),
        conv("depthwise, twice", nn.Conv2d(4, 8, 3, groups=4), 2, 4, 6, 6),
        conv("1-d", nn.Conv1d(3, 7, 4, padding=2, stride=2), 2, 3, 11),
        conv("1-d, dilated", nn.Conv1d(3, 7, 2, dilation=3), 2, 3, 11),
        conv("3-d", nn.Conv3d(2, 4, 3, padding=1, stride=2), 1, 2, 5, 6, 7),
        conv("many channels", nn.Conv2d(24, 40, 3, padding=1), 1, 24, 4, 4),
        conv("columns in two blocks", nn.Conv2d(8, 128, 3, padding=1), 2, 8, 4, 4),
        conv("large", nn.Conv2d(70, 90, 3, padding=1), 2, 70, 5, 6),
        conv("large, small images", nn.Conv2d(16, 130, 3, padding=1), 2, 16, 2, 2),
        conv("large images", nn.Conv2d(8, 14, 3, padding=1), 2, 8, 24, 24),
        conv("large images, odd channels", nn.Conv2d(9, 5, 3, padding=1), 2, 9, 23, 25),
        conv("deep, small images", nn.Conv2d(179, 70, 3, padding=1), 2, 179, 4, 4),
    ]


def small_images() -> list[Case]:
    """Enough images and channels for products to leave padding out."""
    options = {
        (7, 2, 2): [{"padding": 1}, {"padding": 2}, {"padding": 1, "stride": 2}],
        (3, 4, 3): [
            {"padding": 1, "stride": 2}, {"padding": (2, 1), "stride": 3},
            {"padding": 2, "dilation": 2}, {"padding": (0, 2), "stride": (1, 2)},
        ],
    }  # fmt: skip
    return [
        *(
            conv(f"{size}, {o}", nn.Conv2d(17, 24, 3, **o), size[0], 17, *size[1:])
            for size, several in options.items()
            for o in several
        ),
        conv("five taps", nn.Conv2d(16, 16, 5, padding=2), 2, 16, 4, 5),
        conv("blocks of channels", nn.Conv2d(302, 64, 3, padding=1), 2, 302, 2, 2),
        conv("blocks of images", nn.Conv2d(130, 16, 3, padding=1), 75, 130, 6, 7),
        conv("1-d", nn.Conv1d(20, 16, 4, padding=2, stride=2), 5, 20, 5),
        conv("1-d, even", nn.Conv1d(16, 70, 4, padding=3), 6, 16, 3),
        conv("3-d", nn.Conv3d(16, 17, 3, padding=1), 3, 16, 2, 3, 2),
        conv("transposed", nn.ConvTranspose2d(18, 16, 3, padding=1), 4, 18, 3, 2),
        conv("transposed, step 2", nn.ConvTranspose2d(16, 18, 3, 2, padding=1), 4, 16, 2, 2),
    ]


def transposed() -> list[Case]:
    return [
        conv("plain", nn.ConvTranspose2d(3, 5, 3), 2, 3, 5, 4),
        conv("step 2", nn.ConvTranspose2d(4, 6, 2, stride=2), 2, 4, 5, 4),
        conv("more", nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1), 2, 4, 5, 4),
        conv("groups", nn.ConvTranspose2d(4, 6, 4, 2, padding=1, groups=2), 2, 4, 4, 4),
        conv("dilated", nn.ConvTranspose2d(4, 6, 3, dilation=2), 2, 4, 4, 4),
        conv("far taps", nn.ConvTranspose2d(4, 6, 3, dilation=4, padding=4), 2, 4, 3, 3),
        conv("1-d", nn.ConvTranspose1d(4, 6, 3, stride=3), 2, 4, 5),
        conv("3-d", nn.ConvTranspose3d(2, 3, 2, stride=2), 1, 2, 3, 3, 3),
    ]


def _one_image() -> list[nn.Module]:
    pools = [nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(3, 2)]
    return [*pools, nn.AdaptiveMaxPool2d((3, 2)), nn.AdaptiveAvgPool2d((3, 2))]


def _ties_and_nan() -> torch.Tensor:
    x = torch.ones(2, 2, 7, 5)
    x[0, 0, 3, 3], x[1, 1, 6], x[0, 1, 0, 4] = torch.nan, -torch.inf, torch.inf
    return x


def _adaptive_places(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.adaptive_max_pool2d(x, (3, 4), return_indices=True)[1] * x[0, 0, 0, 0]


def pooling() -> list[Case]:
    return [
        conv("max", nn.MaxPool2d(2), 2, 3, 6, 8),
        conv("max, rest", nn.MaxPool2d(2), 2, 3, 7, 5),
        conv("max, overlapping", nn.MaxPool2d(3, 2, padding=1), 2, 3, 8, 9),
        conv("max, ceil", nn.MaxPool2d(3, 2, ceil_mode=True), 2, 3, 8, 8),
        conv("max, dilated", nn.MaxPool2d(2, 2, dilation=2), 2, 3, 8, 9),
        Case("max, ties", nn.MaxPool2d(2), (torch.ones(1, 2, 4, 4),)),
        conv("max 1-d", nn.MaxPool1d(3, 2), 2, 3, 9),
        conv("max 3-d", nn.MaxPool3d(2), 2, 3, 4, 4, 6),
        conv("mean", nn.AvgPool2d(2), 2, 3, 6, 8),
        conv("mean, padded", nn.AvgPool2d(3, 2, padding=1), 2, 3, 8, 9),
        conv("mean of real ones", nn.AvgPool2d(3, 2, 1, count_include_pad=False), 2, 3, 8, 9),
        conv("mean, ceil", nn.AvgPool2d(3, 2, ceil_mode=True), 2, 3, 8, 8),
        conv("mean 1-d", nn.AvgPool1d(2), 2, 3, 9),
        conv("mean 3-d", nn.AvgPool3d(2), 1, 3, 4, 4, 6),
        conv("adaptive mean", nn.AdaptiveAvgPool2d(1), 2, 3, 6, 8),
        conv("adaptive mean 3", nn.AdaptiveAvgPool2d((3, 2)), 2, 3, 6, 8),
        conv("adaptive mean, uneven", nn.AdaptiveAvgPool2d((3, 2)), 2, 3, 7, 5),
        conv("adaptive max", nn.AdaptiveMaxPool2d(2), 2, 3, 6, 8),
        conv("adaptive max, 1", nn.AdaptiveMaxPool2d(1), 2, 3, 5, 3),
        conv("adaptive max, uneven", nn.AdaptiveMaxPool2d((3, 2)), 2, 3, 7, 5),
        conv("adaptive max 3d", nn.AdaptiveMaxPool3d((2, 1, 2)), 2, 2, 4, 3, 6),
        conv("adaptive max 1d, uneven", nn.AdaptiveMaxPool1d(3), 2, 3, 7),
        conv("adaptive max 3d, uneven", nn.AdaptiveMaxPool3d((2, 3, 4)), 2, 2, 5, 7, 6),
        conv("adaptive max to more", nn.AdaptiveMaxPool2d((5, 3)), 2, 3, 3, 4),
        conv("adaptive mean 3d, uneven", nn.AdaptiveAvgPool3d((2, 3, 4)), 2, 2, 5, 7, 6),
        *(conv(f"one image, {type(p).__name__}", p, 3, 7, 5) for p in _one_image()),
        Case("adaptive max, ties and NaN", nn.AdaptiveMaxPool2d((3, 2)), (_ties_and_nan(),)),
        Case("adaptive indices", Function(_adaptive_places), (_ties_and_nan(),)),
        conv("power", nn.LPPool2d(2, 2), 2, 3, 6, 8),
        Case(
            "indices",
            Function(
                lambda x: (
                    torch.nn.functional.max_pool2d(x, 2, return_indices=True)[1] * x[0, 0, 0, 0]
                )
            ),
            (normal(2, 3, 6, 6),),
        ),
    ]
