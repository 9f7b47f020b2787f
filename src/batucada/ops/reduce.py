"""Reductions.  They keep the reduced dimensions with extent 1; a reshape drops them where
PyTorch does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import DType, Shape, Type
from batucada.ops.base import Op, TypeRuleError, define, make, normal_dims, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast, in_single, widen
from batucada.ops.view import aten_slice, reshape


def _infer(x: Type, dims: Shape) -> Type:
    if any(not 0 <= d < len(x.shape) for d in dims):
        raise TypeRuleError(f"reduce: dimensions {dims} of {x}")
    return Type(x.dtype, tuple(1 if i in dims else s for i, s in enumerate(x.shape)))


def _no_empty(x: Type, dims: Shape) -> Type:
    if any(x.shape[d] == 0 for d in dims):
        raise TypeRuleError(f"no maximum or minimum over an empty dimension of {x}")
    return _infer(x, dims)


def _keep(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda x, dims: np.asarray(function(x, axis=dims, keepdims=True)).astype(x.dtype)


def _first_index(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda x, dims: np.expand_dims(function(x, axis=dims[0]), dims[0]).astype(np.int64)


define(Op("sum", "reduce", _infer, _keep(np.sum)))
define(Op("prod", "reduce", _infer, _keep(np.prod)))
define(Op("amax", "reduce", _no_empty, _keep(np.max)))
define(Op("amin", "reduce", _no_empty, _keep(np.min)))


def reduce(op: str, x: Node, dims: Sequence[int] | int | None = None, keepdim: bool = True) -> Node:
    """`dims` None or empty: all of them.  Half precision is added up in f32."""
    chosen = normal_dims(dims, len(x.type.shape))
    source = widen(x) if op in ("sum", "prod") else x
    out = cast(make(op, source, dims=chosen), x.type.dtype) if chosen else x
    if keepdim:
        return out
    return reshape(out, [s for i, s in enumerate(out.type.shape) if i not in chosen])


def _sum_input(x: Node, dtype: DType | None) -> Node:
    if dtype is not None:
        return cast(x, dtype)
    return x if x.type.is_float else cast(x, "i64")


@translates("aten.sum.default")
def _sum(x: Node, *, dtype: DType | None = None) -> Node:
    return reduce("sum", _sum_input(x, dtype), None, keepdim=False)


@translates("aten.sum.dim_IntList")
def _sum_dims(
    x: Node, dims: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    return reduce("sum", _sum_input(x, dtype), dims, keepdim)


@translates("aten.mean.default")
def _mean(x: Node, *, dtype: DType | None = None) -> Node:
    return _mean_dims(x, None, dtype=dtype)


@translates("aten.mean.dim")
def _mean_dims(x: Node, dims: Any, keepdim: bool = False, *, dtype: DType | None = None) -> Node:
    return _average(x if dtype is None else cast(x, dtype), dims, keepdim)


@in_single
def _average(x: Node, dims: Any, keepdim: bool) -> Node:
    total = reduce("sum", x, dims, keepdim)
    count = x.type.size // max(total.type.size, 1)
    return make("div", total, scalar(count, x.type.dtype))


@translates("aten.prod.default")
def _prod(x: Node, *, dtype: DType | None = None) -> Node:
    return reduce("prod", _sum_input(x, dtype), None, keepdim=False)


@translates("aten.prod.dim_int")
def _prod_dim(x: Node, dim: int, keepdim: bool = False, *, dtype: DType | None = None) -> Node:
    return reduce("prod", _sum_input(x, dtype), dim, keepdim)


@translates("aten.amax.default")
def _amax(x: Node, dims: Any = None, keepdim: bool = False) -> Node:
    return reduce("amax", x, dims, keepdim)


@translates("aten.amin.default")
def _amin(x: Node, dims: Any = None, keepdim: bool = False) -> Node:
    return reduce("amin", x, dims, keepdim)


@translates("aten.max.default")
def _max(x: Node) -> Node:
    return reduce("amax", x, None, keepdim=False)


@translates("aten.min.default")
def _min(x: Node) -> Node:
    return reduce("amin", x, None, keepdim=False)


def _arg(op: str, x: Node, dim: int, keepdim: bool) -> Node:
    """The first index at which the extreme value stands (NaN counts as the extreme, as in
    PyTorch).
    """
    rank = len(x.type.shape)
    if rank == 0:
        return scalar(0, "i64")
    dim %= rank
    extent = x.type.shape[dim]
    extreme = reduce(op, x, dim)
    ramp = reshape(make("iota", size=extent), [extent if i == dim else 1 for i in range(rank)])
    hit = make("eq", x, extreme)
    if x.type.is_float:
        hit = make("or", hit, make("isnan", x))
    return reduce("amin", make("where", hit, ramp, scalar(extent, "i64")), dim, keepdim)


@translates("aten.argmax.default")
def _argmax(x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _arg("amax", reshape(x, [-1]) if dim is None else x, dim or 0, keepdim)


@translates("aten.argmin.default")
def _argmin(x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _arg("amin", reshape(x, [-1]) if dim is None else x, dim or 0, keepdim)


@translates("aten.max.dim")
def _max_dim(x: Node, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    return reduce("amax", x, dim, keepdim), _arg("amax", x, dim, keepdim)


@translates("aten.min.dim")
def _min_dim(x: Node, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    return reduce("amin", x, dim, keepdim), _arg("amin", x, dim, keepdim)


def _of_truths(op: str, x: Node, dim: int | None, keepdim: bool) -> Node:
    """bool, for uint8 0 or 1 in uint8, as in PyTorch"""
    truths = reduce(op, cast(cast(x, "bool"), "u8"), dim, keepdim)
    return truths if x.type.dtype == "u8" else cast(truths, "bool")


@translates("aten.any.default", "aten.any.dim")
def _any(x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _of_truths("amax", x, dim, keepdim)


@translates("aten.all.default", "aten.all.dim")
def _all(x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _of_truths("amin", x, dim, keepdim)


@in_single
def variance(x: Node, dims: Any, correction: float | None, keepdim: bool = False) -> Node:
    """sum((x - mean)²) / max(count - correction, 0); `correction` None is 1

    Counted from the first element, so that it is 0 where all are equal: the mean of three is not.
    """
    first = x
    for dim in normal_dims(dims, len(x.type.shape)):
        first = aten_slice(first, dim, 0, 1)
    x = make("sub", x, first)
    total = reduce("sum", x, dims)
    count = x.type.size // max(total.type.size, 1)
    spread = make("sub", x, make("div", total, scalar(count, x.type.dtype)))
    freedom = max(0.0, count - (1 if correction is None else correction))
    squares = reduce("sum", make("mul", spread, spread), dims, keepdim)
    return make("div", squares, scalar(freedom, x.type.dtype))


@translates("aten.var.correction")
def _var(
    x: Node, dims: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Node:
    return variance(x, dims, correction, keepdim)


@translates("aten._weight_norm_interface_backward.default")
def _weight_norm_backward(grad: Node, v: Node, g: Node, norms: Node, dim: int) -> tuple[Node, Node]:
    """Of w = v g / |v|: g / |v| (grad - v (grad . v) / |v|^2), and (grad . v) / |v|"""
    kept = normal_dims(dim, len(v.type.shape))
    dims = [d for d in range(len(v.type.shape)) if d not in kept]
    norms = cast(norms, v.type.dtype)
    along = make("div", reduce("sum", make("mul", grad, v), dims), norms)
    across = make("sub", grad, make("mul", v, make("div", along, norms)))
    return make("mul", across, make("div", g, norms)), along
