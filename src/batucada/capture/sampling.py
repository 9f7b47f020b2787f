"""`grid_sampler_2d` as look-ups and products, on the level of autograd: its gradient is theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch._decomp.decompositions import grid_sampler_2d

from batucada.capture.attention import INSTEAD

_taken: Any = grid_sampler_2d
_NEAREST = 1


class _Steps(torch.autograd.Function):
    """`out` itself, which changes with the grid in steps: a gradient of 0."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad, torch.zeros_like(ctx.saved_tensors[0])


def _sampled(
    x: torch.Tensor, grid: torch.Tensor, mode: int, padding: int, align_corners: bool
) -> torch.Tensor:
    out: torch.Tensor = _taken(x, grid, mode, padding, align_corners)
    return _Steps.apply(out, grid) if mode == _NEAREST else out


INSTEAD.impl("grid_sampler_2d", _sampled, "AutogradMeta")
