"""Operations that make values out of nothing: constants and index ramps."""

from __future__ import annotations

from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import DType, Shape, Type
from batucada.ops.base import NUMPY, Op, define, make, translates

define(
    Op(
        "constant",
        "create",
        lambda value, dtype: Type(dtype),
        lambda value, dtype: np.asarray(value, NUMPY[dtype]),
    )
)
define(
    Op(
        "iota",
        "create",
        lambda size: Type("i64", (size,)),
        lambda size: np.arange(size, dtype=np.int64),
    )
)


def scalar(value: float | int | bool, dtype: DType) -> Node:
    """A 0-dimensional constant, held exactly as `dtype` would hold it."""
    if dtype == "bool":
        return make("constant", value=bool(value), dtype=dtype)
    if dtype[0] in "iu":
        return make("constant", value=int(value), dtype=dtype)
    return make("constant", value=float(value), dtype=dtype)


def full(shape: Shape, value: float | int | bool, dtype: DType) -> Node:
    constant = scalar(value, dtype)
    return make("expand", constant, shape=shape) if shape else constant


def _dtype(given: Any, fallback: DType) -> DType:
    return fallback if given is None else given


@translates("aten.full.default")
def _full(size: Any, value: Any, *, dtype: Any = None, **_: Any) -> Node:
    fallback: DType = (
        "bool" if isinstance(value, bool) else "i64" if isinstance(value, int) else "f32"
    )
    return full(tuple(size), value, _dtype(dtype, fallback))


@translates("aten.full_like.default")
def _full_like(x: Node, value: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(x.type.shape, value, _dtype(dtype, x.type.dtype))


@translates("aten.new_full.default")
def _new_full(x: Node, size: Any, value: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(tuple(size), value, _dtype(dtype, x.type.dtype))


@translates("aten.zeros.default")
def _zeros(size: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(tuple(size), 0, _dtype(dtype, "f32"))


@translates("aten.ones.default")
def _ones(size: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(tuple(size), 1, _dtype(dtype, "f32"))


@translates("aten.zeros_like.default", "aten.empty_like.default")
def _zeros_like(x: Node, *, dtype: Any = None, **_: Any) -> Node:
    return full(x.type.shape, 0, _dtype(dtype, x.type.dtype))


@translates("aten.ones_like.default")
def _ones_like(x: Node, *, dtype: Any = None, **_: Any) -> Node:
    return full(x.type.shape, 1, _dtype(dtype, x.type.dtype))


@translates("aten.new_zeros.default", "aten.new_empty.default")
def _new_zeros(x: Node, size: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(tuple(size), 0, _dtype(dtype, x.type.dtype))


@translates("aten.empty.memory_format", "aten.empty_strided.default", "prims.empty_strided.default")
def _empty(size: Any, *_: Any, dtype: Any = None, **__: Any) -> Node:
    return full(tuple(size), 0, _dtype(dtype, "f32"))


@translates("aten.new_ones.default")
def _new_ones(x: Node, size: Any, *, dtype: Any = None, **_: Any) -> Node:
    return full(tuple(size), 1, _dtype(dtype, x.type.dtype))


@translates("aten.scalar_tensor.default")
def _scalar_tensor(value: Any, *, dtype: Any = None, **_: Any) -> Node:
    return scalar(value, _dtype(dtype, "f32"))


@translates("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def _arange(*bounds: Any, dtype: Any = None, **_: Any) -> Node:
    start, stop, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    whole = all(isinstance(v, int) for v in (start, stop, step))
    kind: DType = _dtype(dtype, "i64" if whole else "f32")
    count = max(0, int(np.ceil((stop - start) / step)))
    ramp = make("iota", size=count)
    ramp = ramp if kind == "i64" else make("cast", ramp, dtype=kind)
    scaled = ramp if step == 1 else make("mul", ramp, scalar(step, kind))
    return scaled if start == 0 else make("add", scaled, scalar(start, kind))


@translates("aten.fft_fftfreq.default")
def _frequencies(n: int, d: float = 1.0, *, dtype: Any = None, **_: Any) -> Node:
    """0, 1, ..., -2, -1 over n d"""
    place = make("iota", size=n)
    negative = make("ge", place, scalar((n + 1) // 2, "i64"))
    turned = make("where", negative, make("sub", place, scalar(n, "i64")), place)
    return _over(turned, n * d, _dtype(dtype, "f32"))


@translates("aten.fft_rfftfreq.default")
def _half_frequencies(n: int, d: float = 1.0, *, dtype: Any = None, **_: Any) -> Node:
    """0, 1, ..., n // 2 over n d"""
    return _over(make("iota", size=n // 2 + 1), n * d, _dtype(dtype, "f32"))


def _over(whole: Node, period: float, dtype: DType) -> Node:
    return make("mul", make("cast", whole, dtype=dtype), scalar(1 / period, dtype))
