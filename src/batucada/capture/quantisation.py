"""`fake_quantize` on the level of autograd: its gradient is that of values within the range."""

from __future__ import annotations

from typing import Any

import torch

from batucada.capture.dispatcher import instead_of

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


@instead_of("fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine.tensor_qparams")
def _quantised(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Tensor:
    """(clamp(round(x / scale) + zero, low, high) - zero) scale"""
    with torch.no_grad():
        steps = torch.round(x * (1 / scale)) + zero
        rounded = ((steps.clamp(low, high) - zero) * scale).to(x.dtype)
        within = (steps >= low) & (steps <= high)
    return _Through.apply(x, rounded, within)


@instead_of("fake_quantize_per_channel_affine")
def _of_channels(x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int) -> Tensor:
    shape = [-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())]
    return _quantised(x, scale.view(shape), zero.view(shape), low, high)


@instead_of("fused_moving_avg_obs_fake_quant")
def _observed(
    x: Tensor, observer_on: Tensor, fake_quant_on: Tensor, running_min: Tensor,
    running_max: Tensor, scale: Tensor, zero_point: Tensor, averaging_const: float,
    quant_min: int, quant_max: int, ch_axis: int, per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> Tensor:  # fmt: skip
    """Moves the running extremes towards those of x where `observer_on`, and quantises by them
    where `fake_quant_on`.
    """
    if not running_min.numel():
        raise ValueError("an observer has no shape yet; run the model once on the host first")
    on = fake_quant_on.bool().reshape(())
    with torch.no_grad():
        rows = x.transpose(0, ch_axis).flatten(1) if per_row_fake_quant else x.reshape(1, -1)
        for running, now in ((running_min, rows.amin(1)), (running_max, rows.amax(1))):
            now = now.reshape(running.shape)
            moved = torch.where(running.isinf(), now, running + averaging_const * (now - running))
            running.copy_(torch.where(observer_on.bool().reshape(()), moved, running))
        found = _range(running_min, running_max, quant_min, quant_max, symmetric_quant)
        for kept, new in zip((scale, zero_point), found, strict=True):
            kept.copy_(torch.where(on, new.reshape(kept.shape).to(kept.dtype), kept))
    if per_row_fake_quant:
        out = _of_channels(x, scale, zero_point, ch_axis, quant_min, quant_max)
    else:
        out = _quantised(x, scale.reshape(()), zero_point.reshape(()), quant_min, quant_max)
    return torch.where(on, out, x)


_LEAST_SCALE = 6.1e-5  # of ATen's ChooseQuantizationParams, which this is


def _range(
    least: Tensor, greatest: Tensor, low: int, high: int, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which `low` .. `high` hold `least` .. `greatest`, and 0."""
    least, greatest = least.double(), greatest.double()
    is_both = (least < 0) & (greatest > 0) if symmetric else torch.zeros_like(least).bool()
    most = (high - low) // 2
    widest = torch.maximum((least / (most + 1)).abs(), (greatest / most).abs())
    least = torch.where(is_both, -widest * (most + 1), least).clamp_max(0)
    greatest = torch.where(is_both, widest * most, greatest).clamp_min(0)
    scale = (greatest - least) / (high - low)
    scale = torch.where((scale.float() == 0) | (1 / scale.float()).isinf(), 0.1, scale)
    below, above = least / scale, greatest / scale
    nearer_low = abs(low) - below.abs() < abs(high) - above.abs()
    zero = torch.where(nearer_low, low - below, high - above)
    zero = torch.where(is_both, (low + high) / 2, zero).clamp(low, high).round()
    return scale.clamp_min(_LEAST_SCALE), zero
