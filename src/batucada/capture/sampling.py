"""`grid_sampler_2d` and `3d` as look-ups and products, on the level of autograd: their gradient is
that of these.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch._decomp.decompositions import grid_sampler_2d

from batucada.capture.dispatcher import instead_of

_taken: Any = grid_sampler_2d
_NEAREST = 1
_BORDER, _REFLECTION = 1, 2
_HALVES = (torch.bfloat16, torch.float16)


class _Steps(torch.autograd.Function):
    """`out` itself, which changes with the grid in steps: a gradient of 0."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad, torch.zeros_like(ctx.saved_tensors[0])


@instead_of("grid_sampler_2d")
def _sampled(
    x: torch.Tensor, grid: torch.Tensor, mode: int, padding: int, align_corners: bool
) -> torch.Tensor:
    out: torch.Tensor = _taken(x, grid, mode, padding, align_corners)
    return _Steps.apply(out, grid) if mode == _NEAREST else out


@instead_of("grid_sampler_3d")
def _sampled_volume(
    x: torch.Tensor, grid: torch.Tensor, mode: int, padding: int, align_corners: bool
) -> torch.Tensor:
    """[N, C, D, H, W] and [N, D', H', W', 3], the place along W first -> [N, C, D', H', W']; what
    has two bytes is computed in f32.
    """
    if x.dtype in _HALVES:
        return _sampled_volume(x.float(), grid.float(), mode, padding, align_corners).to(x.dtype)
    sizes = x.shape[:1:-1]
    places = [
        _place(coordinates, size, padding, align_corners)
        for coordinates, size in zip(grid.unbind(-1), sizes, strict=True)
    ]
    if mode == _NEAREST:
        return _Steps.apply(_values(x, [place.round() for place in places]), grid)
    low = [place.floor() for place in places]
    parts: list[torch.Tensor] = []
    for corner in itertools.product((0, 1), repeat=3):
        weight: Any = 1
        for step, place, below in zip(corner, places, low, strict=True):
            weight = weight * (place - below if step else below + 1 - place)
        at = [below + step for step, below in zip(corner, low, strict=True)]
        parts.append(_values(x, at) * weight.unsqueeze(1))
    return torch.stack(parts).sum(0)


def _place(at: torch.Tensor, size: int, padding: int, align_corners: bool) -> torch.Tensor:
    """From -1 .. 1 to elements along a dimension of `size`.  What is no number is outside, or at
    the last element where there is no outside.
    """
    at = at * ((size - align_corners) / 2) + (size - 1) / 2
    if padding not in (_BORDER, _REFLECTION):
        return torch.where(at.abs() < torch.inf, at, -2)
    if padding == _REFLECTION:
        at = _reflected(at, 0 if align_corners else -0.5, size - 1 if align_corners else size)
    return torch.where(at.isnan(), size - 1, at).clamp(0, size - 1)


def _reflected(at: torch.Tensor, low: float, span: int) -> torch.Tensor:
    """At the ends, `low` and `low + span`, as often as it takes."""
    if span == 0:
        return torch.zeros_like(at)
    beyond = (at - low).abs()
    rest, turns = torch.fmod(beyond, span), (beyond / span).floor()
    return torch.where(torch.fmod(turns, 2) == 0, rest + low, span + low - rest)


def _values(x: torch.Tensor, at: list[torch.Tensor]) -> torch.Tensor:
    """x at whole places (W, H, D) that [N, D', H', W'] each hold; 0 outside."""
    sizes = x.shape[:1:-1]
    inside = torch.ones_like(at[0], dtype=torch.bool)
    for place, size in zip(at, sizes, strict=True):
        inside = inside & (place >= 0) & (place < size)
    w, h, d = (torch.where(inside, place, 0).long().unsqueeze(1) for place in at)
    batch = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1, 1)
    return torch.where(inside.unsqueeze(1), x[batch, channel, d, h, w], 0)
