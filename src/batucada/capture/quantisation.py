"""`fake_quantize` on the level of autograd: its gradient is that of values within the range."""

from __future__ import annotations

from typing import Any

import torch

from batucada.capture.attention import INSTEAD

Tensor = torch.Tensor


class _Through(torch.autograd.Function):
    """`rounded`, with the gradient of `x` where it is within the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor, within: Tensor) -> Tensor:
        ctx.save_for_backward(within)
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[0], None, None


def _quantised(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Tensor:
    """(clamp(round(x / scale) + zero, low, high) - zero) scale"""
    with torch.no_grad():
        steps = torch.round(x * (1 / scale)) + zero
        rounded = ((steps.clamp(low, high) - zero) * scale).to(x.dtype)
        within = (steps >= low) & (steps <= high)
    return _Through.apply(x, rounded, within)


def _of_channels(x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int) -> Tensor:
    shape = [-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())]
    return _quantised(x, scale.view(shape), zero.view(shape), low, high)


INSTEAD.impl("fake_quantize_per_tensor_affine", _quantised, "AutogradMeta")
INSTEAD.impl("fake_quantize_per_tensor_affine.tensor_qparams", _quantised, "AutogradMeta")
INSTEAD.impl("fake_quantize_per_channel_affine", _of_channels, "AutogradMeta")
