"""Interpolation, padding, and what moves elements between channels and places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(17)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _case(name: str, function: Callable[..., Any], *tensors: torch.Tensor) -> Case:
    """Positions are computed in float32, so weights are off by the rounding of a position."""
    module = function if isinstance(function, nn.Module) else Function(function)
    return Case(name, module, tensors, 2e-5, 1e-5)


_SIZES = {1: (13,), 2: (13, 9), 3: (6, 7, 4)}
_MODES = {
    1: "nearest nearest-exact linear area",
    2: "nearest nearest-exact bilinear bicubic area",
    3: "nearest nearest-exact trilinear area",
}


def _space(rank: int) -> torch.Tensor:
    return _normal(*{1: (2, 3, 8), 2: (2, 3, 8, 6), 3: (2, 3, 4, 5, 6)}[rank])


def interpolation() -> list[Case]:
    cases = []
    for rank, names in _MODES.items():
        for mode in names.split():
            choices: list[dict[str, Any]] = [{"size": _SIZES[rank]}]
            if mode != "area":
                choices += [{"scale_factor": 2}, {"scale_factor": (0.6, 2.5, 1.3)[:rank]}]
            if mode.endswith(("linear", "cubic")):
                choices.append({"size": _SIZES[rank], "align_corners": True})
                choices.append(
                    {"scale_factor": 1.7, "align_corners": False, "recompute_scale_factor": True}
                )
            for options in choices:
                resize = lambda x, m=mode, o=options: functional.interpolate(x, mode=m, **o)  # noqa: E731
                cases.append(_case(f"{mode} {options}", resize, _space(rank)))
    one = lambda x: functional.interpolate(x, (1, 4), mode="bilinear", align_corners=True)  # noqa: E731
    return [*cases, _case("to one row", one, _space(2))]


def padding() -> list[Case]:
    cases = []
    for rank in (1, 2, 3):
        for mode in ("constant", "reflect", "replicate", "circular"):
            for widths in ((1, 2) * rank, (0, 3, 2, 0, 1, 1)[: 2 * rank]):
                padded = lambda x, m=mode, w=widths: functional.pad(x, w, mode=m)  # noqa: E731
                cases.append(_case(f"pad {mode} {widths}", padded, _space(rank)))
    border = lambda x: functional.pad(x, (2, 1), mode="replicate")  # noqa: E731
    return [
        *cases,
        _case("replicate one", border, _normal(2, 3, 1)),
        _case("replicate two", border, _normal(2, 3, 2)),
        _case("crop", lambda x: functional.pad(x, (-1, 2, -2, -1)), _space(2)),
    ]


def rearrangement() -> list[Case]:
    def unpooled(x: torch.Tensor) -> torch.Tensor:
        y, indices = functional.max_pool2d(x, 2, return_indices=True)
        return functional.max_unpool2d(y, indices, [2, 2])

    return [
        _case("pixel_shuffle", nn.PixelShuffle(2), _normal(2, 8, 3, 4)),
        _case("pixel_unshuffle", nn.PixelUnshuffle(2), _normal(2, 3, 4, 6)),
        _case("channel_shuffle", nn.ChannelShuffle(2), _normal(2, 8, 3, 4)),
        _case("unfold", nn.Unfold((3, 2), padding=1, stride=2), _space(2)),
        _case("unfold dilated", nn.Unfold(2, dilation=2), _space(2)),
        _case("fold", nn.Fold((6, 7), (3, 2), padding=1, stride=(1, 2)), _normal(2, 18, 24)),
        _case("LPPool1d", nn.LPPool1d(2, 3), _space(1)),
        _case("LPPool2d", nn.LPPool2d(3, 2), _space(2)),
        _case("LocalResponseNorm", nn.LocalResponseNorm(3), _space(2)),
        _case("max_unpool2d", unpooled, _space(2)),
    ]
