"""Windows that slide over a tensor, as a view, and the padding around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Shape, Type
from batucada.ops.base import Op, TypeRuleError, define, make, normal_dim, translates
from batucada.ops.view import aten_slice


def places(extent: int, size: int, step: int, dilation: int) -> int:
    """How many windows fit."""
    return (extent - dilation * (size - 1) - 1) // step + 1


def meeting(at: int, step: int, count: int, extent: int) -> range:
    """Of `count` windows, `step` apart, those whose tap at `at` in the first one meets an image of
    `extent`, which begins at 0.
    """
    return range(max(0, -(at // step)), min(count, (extent - 1 - at) // step + 1))


def _window(x: Type, dims: Shape, sizes: Shape, steps: Shape, dilations: Shape) -> Type:
    shape = list(x.shape)
    for dim, size, step, dilation in zip(dims, sizes, steps, dilations, strict=True):
        shape[dim] = places(x.shape[dim], size, step, dilation)
        if size < 1 or shape[dim] < 1:
            raise TypeRuleError(f"window: {size} taps {dilation} apart do not fit {x}, {dim=}")
    return Type(x.dtype, (*shape, *sizes))


def _window_ref(
    x: np.ndarray, dims: Shape, sizes: Shape, steps: Shape, dilations: Shape
) -> np.ndarray:
    strides = [x.strides[dim] * dilation for dim, dilation in zip(dims, dilations, strict=True)]
    outer = list(x.strides)
    for dim, step in zip(dims, steps, strict=True):
        outer[dim] *= step
    shape = _window(Type("f32", x.shape), dims, sizes, steps, dilations).shape
    return np.lib.stride_tricks.as_strided(x, shape, (*outer, *strides))


define(Op("window", "view", _window, _window_ref))


def window(
    x: Node,
    dims: Sequence[int],
    sizes: Sequence[int],
    steps: Sequence[int],
    dilations: Sequence[int],
) -> Node:
    """Each of `dims` counts windows, and a new last dimension for each counts the taps: tap j of
    window i is at i * step + j * dilation.
    """
    return make(
        "window", x, dims=tuple(dims), sizes=tuple(sizes), steps=tuple(steps),
        dilations=tuple(dilations),
    )  # fmt: skip


@translates("aten.unfold.default")
def _unfold(x: Node, dim: int, size: int, step: int) -> Node:
    return window(x, [normal_dim(dim, len(x.type.shape))], [size], [step], [1])


def _pad(x: Type, low: Shape, high: Shape, value: float) -> Type:
    return Type(x.dtype, tuple(a + e + b for e, a, b in zip(x.shape, low, high, strict=True)))


def _pad_ref(x: np.ndarray, low: Shape, high: Shape, value: float) -> np.ndarray:
    return np.pad(x, list(zip(low, high, strict=True)), constant_values=value)


define(Op("pad", "index", _pad, _pad_ref))


def pad(x: Node, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Node:
    """`low[d]` and `high[d]` elements of `value` before and behind; less than none cuts."""
    x, around = cut(x, low, high)
    return make("pad", x, **around, value=value) if around else x


def cut(x: Node, low: Sequence[int], high: Sequence[int]) -> tuple[Node, dict[str, Shape]]:
    """`x` without what less than none cuts, and what is left to be put around it."""
    for dim, (before, behind) in enumerate(zip(low, high, strict=True)):
        stop = x.type.shape[dim] + min(behind, 0)
        x = aten_slice(x, dim, max(0, -before), max(stop, 0))
    low, high = tuple(max(a, 0) for a in low), tuple(max(b, 0) for b in high)
    return x, {"low": low, "high": high} if any(low) or any(high) else {}


@translates("aten.constant_pad_nd.default")
def _constant_pad(x: Node, amounts: Sequence[int], value: float = 0.0) -> Node:
    """`amounts` are (before, behind) from the last dimension on"""
    rank = len(x.type.shape)
    low, high = [0] * rank, [0] * rank
    for i in range(len(amounts) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    return pad(x, low, high, value)
