"""Distances between rows; values sampled at points of a grid, and by antialiasing filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(13)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _case(name: str, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Case:
    return Case(name, Function(function), inputs)


def distances() -> list[Case]:
    rows = _normal(5, 3)
    rows[1] = rows[0]  # a distance of 0
    others = torch.cat([rows[:2], _normal(4, 3)])
    cases = []
    for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.5, math.inf):
        cases += [
            _case(f"cdist {p}", lambda a, b, p=p: torch.cdist(a, b, p=p), rows, others),
            _case(f"pdist {p}", lambda a, p=p: functional.pdist(a, p=p), rows),
        ]
    return [
        *cases,
        _case("batches", lambda a, b: torch.cdist(a, b, p=1.0), _normal(2, 5, 3), _normal(4, 3)),
        _case("products", torch.cdist, _normal(2, 30, 3), _normal(2, 40, 3)),
        _case("many pairs", functional.pdist, _normal(90, 3)),
        _case("one pair", functional.pdist, _normal(2, 1)),
        _case("f64", functional.pdist, _normal(6, 4).double()),
        _case("erfinv", torch.erfinv, torch.tensor([-1, 1, 0, -0.0, 0.3, 0.69, 0.71, 0.99, 2])),
    ]


def sampling() -> list[Case]:
    modes = (
        ("bilinear", "zeros", False), ("bilinear", "border", True),
        ("nearest", "reflection", False), ("bicubic", "border", False),
    )  # fmt: skip

    def sample(mode: str, padding: str, corners: bool) -> Callable[..., torch.Tensor]:
        options: dict[str, Any] = {"padding_mode": padding, "align_corners": corners}
        return lambda x, grid: functional.grid_sample(x, grid, mode=mode, **options)

    def values(mode: str, padding: str, corners: bool) -> Callable[..., torch.Tensor]:
        """Forward alone: in PyTorch 2.14 the gradient at such places leaves the image's memory."""
        found = sample(mode, padding, corners)
        return lambda x, grid: x.sum() + found(x.detach(), grid.detach())

    images = [
        _case(" ".join(map(str, mode)), sample(*mode), _normal(2, 3, 6, 5), _normal(2, 4, 4, 2))
        for mode in modes
    ]
    volumes = [
        _case(f"3d {mode} {padding} {corners}", sample(mode, padding, corners),
              _normal(2, 3, 4, 1, 5), 1.7 * _normal(2, 2, 3, 2, 3).clamp(-1, 1))
        for mode in ("bilinear", "nearest")
        for padding, corners in (("zeros", False), ("border", True), ("reflection", False))
    ]  # fmt: skip
    one_row = sample("bilinear", "reflection", True)
    beyond = _normal(1, 2, 2, 2, 3)
    beyond[0, 0, 0, 0, 0], beyond[0, 0, 0, 1, 1] = math.nan, math.inf
    beyond[0, 0, 1, 0, 2] = -math.inf
    no_numbers = [
        _case(f"3d {mode} no numbers", values(*mode), _normal(1, 2, 3, 4, 5), beyond)
        for mode in modes[:3]
    ]
    return [
        *images,
        *volumes,
        *no_numbers,
        _case("3d a row", one_row, _normal(1, 1, 3, 1, 4), _normal(1, 2, 2, 1, 3)),
    ]


def antialiased() -> list[Case]:
    sizes: list[dict[str, Any]] = [{"size": (4, 3)}, {"scale_factor": 1.7}, {"scale_factor": 0.37}]

    def resize(mode: str, corners: bool, size: dict[str, Any]) -> Callable[..., torch.Tensor]:
        options: dict[str, Any] = {"align_corners": corners, "antialias": True, **size}
        return lambda x: functional.interpolate(x, mode=mode, **options)

    return [  # PyTorch computes places and weights in f32, too, in another order
        Case(
            f"{mode} {corners} {size}",
            Function(resize(mode, corners, size)),
            (_normal(2, 3, 19, 8),),
            1e-4,
            1e-5,
        )
        for mode in ("bilinear", "bicubic")
        for corners in (False, True)
        for size in sizes
    ]
