"""Values written at computed indices: scatter and its relatives, all of them `put`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import FLOATS, DType, Shape, Type
from batucada.ops.base import (
    NUMPY,
    Op,
    TypeRuleError,
    broadcast,
    define,
    make,
    normal_dim,
    translates,
)
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast, tensor
from batucada.ops.index import checked, from_either_end, lookup, places
from batucada.ops.view import aten_slice, expand, permute, reshape

_NUMPY: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


def _put(x: Type, values: Type, *indices: Type, dims: Shape, mode: str) -> Type:
    rank = len(x.shape)
    if len(dims) != len(indices) or list(dims) != sorted({d for d in dims if 0 <= d < rank}):
        raise TypeRuleError(f"put: dimensions {dims} of {x} by {len(indices)} indices")
    if values.dtype != x.dtype or any(index.dtype != "i64" for index in indices):
        raise TypeRuleError(f"put: {values} at {', '.join(map(str, indices))} in {x}")
    if broadcast(values.shape, *(i.shape for i in indices)) != values.shape:
        raise TypeRuleError(f"put: {values} at {', '.join(map(str, indices))}")
    for d, (extent, given) in enumerate(zip(x.shape, values.shape, strict=True)):
        if d not in dims and extent not in (1, given) and given > extent:
            raise TypeRuleError(f"put: dimension {d} of {values} is larger than that of {x}")
    if values.size and 0 in x.shape:
        raise TypeRuleError(f"put: {values} into the empty {x}")
    return x


def _put_ref(
    x: np.ndarray, values: np.ndarray, *indices: np.ndarray, dims: Shape, mode: str
) -> np.ndarray:
    out = np.array(x)
    given = tuple(1 if s == 1 else v for s, v in zip(x.shape, values.shape, strict=True))
    clipped = [np.clip(i, 0, max(x.shape[d] - 1, 0)) for i, d in zip(indices, dims, strict=True)]
    sizes = [max(x.shape[d], 1) if d in dims else g for d, g in enumerate(given)]
    at = places(tuple(sizes), clipped, dims)
    if mode == "assign":
        out[at] = values
    else:
        _NUMPY[mode].at(out, at, values)
    return out


define(Op("put", "index", _put, _put_ref))
"""put(x, values, i, j, dims=(a, b)): x with every values[p], in order, combined by `mode` (assign,
add, mul, maximum, minimum) with what stands at p with i[p] at dimension a and j[p] at b.

Indices broadcast to the shape of `values`, which in the other dimensions may be smaller than x;
along one in which x has an extent of 1 all go to the same place.  An index out of range counts as
the nearest one in range."""


def put(x: Node, values: Node, indices: Sequence[Node], dims: Shape, mode: str) -> Node:
    """x itself where there is nothing to write."""
    if not values.type.size:
        return x
    return make("put", x, cast(values, x.type.dtype), *indices, dims=dims, mode=mode)


# ---- one index along one dimension


def scattered(x: Node, dim: int, index: Node, src: Node, mode: str) -> Node:
    """out[i, index[i, j]] = mode(x there, src[i, j]) for dim 1; src may be larger than the index"""
    rank = len(x.type.shape)
    dim = normal_dim(dim, rank)
    if rank == 0 or not index.type.shape:
        rows = [reshape(node, node.type.shape or (1,)) for node in (x, index, src)]
        return reshape(scattered(rows[0], dim, rows[1], rows[2], mode), x.type.shape)
    values = _cut(src, index.type.shape)
    return put(x, values, [checked(index, x.type.shape[dim])], (dim,), mode)


def _cut(src: Node, shape: Shape) -> Node:
    """The first elements of each dimension; a number is spread."""
    for d, extent in enumerate(shape if src.type.shape else ()):
        src = aten_slice(src, d, 0, extent)
    return expand(src, shape)


@translates("aten.scatter.src")
def _scatter(x: Node, dim: int, index: Node, src: Node) -> Node:
    return scattered(x, dim, index, src, "assign")


@translates("aten.scatter.value")
def _scatter_value(x: Node, dim: int, index: Node, value: Any) -> Node:
    return scattered(x, dim, index, scalar(value, x.type.dtype), "assign")


_MODES = {"add": "add", "sum": "add", "multiply": "mul", "prod": "mul", "amax": "maximum",
          "amin": "minimum"}  # fmt: skip


@translates("aten.scatter.reduce")
def _scatter_by(x: Node, dim: int, index: Node, src: Node, *, reduce: str) -> Node:
    return scattered(x, dim, index, src, _MODES[reduce])


@translates("aten.scatter.value_reduce")
def _scatter_value_by(x: Node, dim: int, index: Node, value: Any, *, reduce: str) -> Node:
    return scattered(x, dim, index, scalar(value, x.type.dtype), _MODES[reduce])


@translates("aten.scatter_add.default")
def _scatter_add(x: Node, dim: int, index: Node, src: Node) -> Node:
    return scattered(x, dim, index, src, "add")


def identity(mode: str, dtype: DType) -> float | int:
    """The value that `mode` leaves any other one unchanged by."""
    if mode in ("add", "mul"):
        return int(mode == "mul")
    if dtype in FLOATS:
        return float("-inf") if mode == "maximum" else float("inf")
    limits = np.iinfo(NUMPY[dtype])
    return int(limits.min if mode == "maximum" else limits.max)


def _reduced(x: Node, values: Node, index: Node, dim: int, kind: str, include_self: bool) -> Node:
    """x with the sum, mean, ... of all values that go to a place, and of x there if asked"""
    dtype, mode = x.type.dtype, _MODES.get(kind, "add")

    def fill(target: Node, value: float | int, by: str) -> Node:
        return put(target, expand(scalar(value, dtype), values.type.shape), [index], (dim,), by)

    out = x if include_self else fill(x, identity(mode, dtype), "assign")
    out = put(out, values, [index], (dim,), mode)
    if kind != "mean":
        return out
    count = fill(full(x.type.shape, int(include_self), dtype), 1, "add")
    count = make("maximum", count, scalar(1, dtype))
    return make("div" if x.type.is_float else "floor_div", out, count)


@translates("aten.scatter_reduce.two")
def _scatter_reduce(
    x: Node, dim: int, index: Node, src: Node, reduce: str, *, include_self: bool = True
) -> Node:
    rank = len(x.type.shape)
    dim = normal_dim(dim, rank)
    if rank == 0 or not index.type.shape:
        a, i, b = (reshape(node, node.type.shape or (1,)) for node in (x, index, src))
        found = _scatter_reduce(a, dim, i, b, reduce, include_self=include_self)
        return reshape(found, x.type.shape)
    values = _cut(src, index.type.shape)
    return _reduced(x, values, checked(index, x.type.shape[dim]), dim, reduce, include_self)


# ---- whole slices along one dimension


def _slices(x: Node, dim: int, index: Node, src: Node) -> tuple[Node, Node, Node, int]:
    """x with at least one dimension, the values to write, the index as a column along `dim`."""
    dim = normal_dim(dim, len(x.type.shape))
    x = reshape(x, x.type.shape or (1,))
    column = reshape(index, [-1 if d == dim else 1 for d in range(len(x.type.shape))])
    shape = [column.type.size if d == dim else s for d, s in enumerate(x.type.shape)]
    fits = src.type.size == column.type.size and len(shape) == 1
    return x, reshape(src, shape) if fits else expand(src, shape), column, dim


@translates("aten.index_add.default")
def _index_add(x: Node, dim: int, index: Node, src: Node, *, alpha: Any = 1) -> Node:
    """x with x[:, index] += alpha * src for dim 1"""
    if alpha != 1:
        src = make("mul", src, scalar(alpha, src.type.dtype))
    row, values, column, dim = _slices(x, dim, index, src)
    found = put(row, values, [checked(column, row.type.shape[dim])], (dim,), "add")
    return reshape(found, x.type.shape)


@translates("aten.index_copy.default")
def _index_copy(x: Node, dim: int, index: Node, src: Node) -> Node:
    """x with x[:, index] = src for dim 1"""
    row, values, column, dim = _slices(x, dim, index, src)
    found = put(row, values, [checked(column, row.type.shape[dim])], (dim,), "assign")
    return reshape(found, x.type.shape)


@translates("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def _index_fill(x: Node, dim: int, index: Node, value: Any) -> Node:
    """x with x[:, index] = value for dim 1"""
    row, values, column, dim = _slices(x, dim, index, tensor(value, x.type.dtype))
    place = from_either_end(column, row.type.shape[dim])
    return reshape(put(row, values, [place], (dim,), "assign"), x.type.shape)


@translates("aten.index_reduce.default")
def _index_reduce(
    x: Node, dim: int, index: Node, src: Node, reduce: str, *, include_self: bool = True
) -> Node:
    row, values, column, dim = _slices(x, dim, index, src)
    place = checked(column, row.type.shape[dim])
    return reshape(_reduced(row, values, place, dim, reduce, include_self), x.type.shape)


# ---- several index tensors, and masks


@translates(
    "aten.index_put.default", "aten._index_put_impl.default", "aten._unsafe_index_put.default"
)
def _index_put(
    x: Node, indices: Sequence[Node | None], values: Node, accumulate: bool = False, *_: Any
) -> Node:
    """x with x[:, i, :, j] = values, or += where it accumulates"""
    masks = [(d, i) for d, i in enumerate(indices) if i is not None]
    if len(masks) == 1 and masks[0][1].type.dtype == "bool":
        return _put_masked(x, *masks[0], values, accumulate)
    found = lookup(x.type, indices)
    turned = [found.taken[d] for d in found.order]
    back = [found.order.index(d) for d in range(len(turned))]
    spread = permute(reshape(expand(values, found.result), turned), back)
    mode = "add" if accumulate else "assign"
    return reshape(
        put(reshape(x, found.source), spread, found.indices, found.dims, mode), x.type.shape
    )


def _put_masked(x: Node, dim: int, mask: Node, values: Node, accumulate: bool) -> Node:
    """x with one value, or one slice, wherever the mask that starts at dimension `dim` is true."""
    rest = len(x.type.shape) - dim - len(mask.type.shape)
    shape = list(values.type.shape)
    if len(shape) > rest:  # the last but `rest` counts the places where the mask is true
        at = len(shape) - rest - 1
        if shape[at] != 1:
            raise TypeRuleError("an assignment of as many values as a mask is true at")
        shape[at : at + 1] = [1] * len(mask.type.shape)
    cover = reshape(mask, [*[1] * dim, *mask.type.shape, *[1] * rest])
    new = cast(reshape(values, shape), x.type.dtype)
    return make("where", cover, make("add", x, new) if accumulate else new, x)


@translates("aten.put.default")
def _put_flat(x: Node, index: Node, src: Node, accumulate: bool = False) -> Node:
    """x, seen as one row, with src at `index`"""
    row, values = reshape(x, [x.type.size]), reshape(src, index.type.shape)
    return reshape(_index_put(row, [index], values, accumulate), x.type.shape)
