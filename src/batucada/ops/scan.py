"""Running sums, products and extremes, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import DType, Type
from batucada.ops.base import Op, TypeRuleError, define, make, normal_dim, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.scatter import put
from batucada.ops.view import expand, reshape

_RUNNING: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add.accumulate, "mul": np.multiply.accumulate, "maximum": np.maximum.accumulate,
    "minimum": np.minimum.accumulate, "logaddexp": np.logaddexp.accumulate,
}  # fmt: skip


def _infer(x: Type, dim: int, by: str) -> Type:
    if by not in _RUNNING or x.dtype == "bool" or not 0 <= dim < len(x.shape):
        raise TypeRuleError(f"scan by {by} of dimension {dim} of {x}")
    return x


def _ref(x: np.ndarray, dim: int, by: str) -> np.ndarray:
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x
    return _RUNNING[by](wide, axis=dim).astype(x.dtype) if x.size else x


define(Op("scan", "index", _infer, _ref))
"""out[i] = x[0] by x[1] by ... by x[i] along `dim`; `by` is add, mul, maximum, minimum or
logaddexp.  Sums and products of f32 are made in f64, as PyTorch does, those of halves in f32."""


def scan(x: Node, dim: int, by: str) -> Node:
    return make("scan", x, dim=normal_dim(dim, len(x.type.shape)), by=by) if x.type.shape else x


def _accumulated(x: Node, dim: int, by: str, dtype: DType | None) -> Node:
    """Integers are counted in i64."""
    return scan(cast(x, dtype or (x.type.dtype if x.type.is_float else "i64")), dim, by)


@translates("aten.cumsum.default")
def _cumsum(x: Node, dim: int, *, dtype: DType | None = None) -> Node:
    return _accumulated(x, dim, "add", dtype)


@translates("aten.cumprod.default")
def _cumprod(x: Node, dim: int, *, dtype: DType | None = None) -> Node:
    return _accumulated(x, dim, "mul", dtype)


@translates("aten.logcumsumexp.default")
def _logcumsumexp(x: Node, dim: int) -> Node:
    return scan(x, dim, "logaddexp")


def _running_extreme(x: Node, dim: int, by: str) -> tuple[Node, Node]:
    """The extreme so far and where it stands: the last place among equal ones; NaN is extreme."""
    if not x.type.shape:
        return x, scalar(0, "i64")
    dim = normal_dim(dim, len(x.type.shape))
    values = scan(cast(x, "u8") if x.type.dtype == "bool" else x, dim, by)
    values = cast(values, x.type.dtype)
    extent = x.type.shape[dim]
    ramp = reshape(make("iota", size=extent), [extent, *[1] * (len(x.type.shape) - dim - 1)])
    hit = make("eq", x, values)
    if x.type.is_float:
        hit = make("or", hit, make("isnan", x))
    return values, scan(make("where", hit, ramp, scalar(0, "i64")), dim, "maximum")


@translates("aten.cummax.default")
def _cummax(x: Node, dim: int) -> tuple[Node, Node]:
    return _running_extreme(x, dim, "maximum")


@translates("aten.cummin.default")
def _cummin(x: Node, dim: int) -> tuple[Node, Node]:
    return _running_extreme(x, dim, "minimum")


def _nth_true(mask: Node, size: int) -> Node:
    """[places]: how many places before this one are true, which is below `size` where it is."""
    count = scan(cast(reshape(mask, [mask.type.size]), "i64"), 0, "add")
    number = make("sub", count, scalar(1, "i64"))
    return make("check_index", number, size=size, ignore=-1, low=0)


@translates("aten.masked_scatter.default")
def _masked_scatter(x: Node, mask: Node, src: Node) -> Node:
    """x with the elements of src, in order, where the mask is true"""
    if not src.type.size:
        raise TypeRuleError(f"masked_scatter: no elements in {src.type}")
    mask = expand(mask, x.type.shape)
    number = _nth_true(mask, src.type.size)
    found = make("take", reshape(src, [src.type.size]), number, dims=(0,))
    return make("where", mask, reshape(found, x.type.shape), x)


@translates("aten.masked_scatter_backward.default")
def _masked_scatter_backward(grad: Node, mask: Node, sizes: Sequence[int]) -> Node:
    """The gradients where the mask is true, in order, in a tensor of `sizes`"""
    mask, shape = expand(mask, grad.type.shape), tuple(sizes)
    zero = scalar(0, grad.type.dtype)
    flat = full((int(np.prod(shape)),), 0, grad.type.dtype)
    taken = reshape(make("where", mask, grad, zero), [grad.type.size])
    return reshape(put(flat, taken, [_nth_true(mask, flat.type.size)], (0,), "add"), shape)
