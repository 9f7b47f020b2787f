"""Sorting: the permutation is an operation of its own, the values are looked up by it."""

from __future__ import annotations

from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Type
from batucada.ops.base import Op, TypeRuleError, define, make, normal_dim, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast, tensor
from batucada.ops.reduce import reduce
from batucada.ops.scatter import identity
from batucada.ops.view import aten_slice, expand, permute, reshape

_STEP = 16
"""What a step of sorting costs, in comparisons of a vector of elements with one place."""


def _argsort(x: Type, descending: bool) -> Type:
    if not x.shape:
        raise TypeRuleError(f"argsort of {x}, which has no dimensions")
    return Type("i64", x.shape)


def _argsort_ref(x: np.ndarray, descending: bool) -> np.ndarray:
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    backwards = np.argsort(np.flip(x, -1), axis=-1, kind="stable")
    return x.shape[-1] - 1 - np.flip(backwards, -1)


define(Op("argsort", "index", _argsort, _argsort_ref))
"""The places along the last dimension in the order of their values; equal ones stay in order, NaN
counts as the greatest."""


def _searchsorted(sequence: Type, values: Type, right: bool) -> Type:
    if sequence.dtype != values.dtype or sequence.shape[:-1] != values.shape[:-1]:
        raise TypeRuleError(f"searchsorted: {values} in {sequence}")
    return Type("i64", values.shape)


def _searchsorted_ref(sequence: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
    wide, found = sequence[..., None, :], values[..., :, None]
    behind = ~(wide > found) if right else ~(wide >= found)
    return behind.sum(-1, dtype=np.int64)


define(Op("searchsorted", "index", _searchsorted, _searchsorted_ref))
"""For each value the number of elements of the sorted last dimension of `sequence` that are below
it, or not above it for `right`."""


def _order(x: Node, dim: int, descending: bool) -> Node:
    """The permutation along `dim`, where it stands in x."""
    turned = list(range(len(x.type.shape)))
    turned[dim], turned[-1] = turned[-1], turned[dim]  # which is its own inverse
    return permute(make("argsort", permute(x, turned), descending=descending), turned)


def _picked(x: Node, places: Node, dim: int) -> Node:
    return make("take", x, places, dims=(dim,))


@translates("aten.sort.default")
def sort(x: Node, dim: int = -1, descending: bool = False) -> tuple[Node, Node]:
    if not x.type.shape:
        return x, scalar(0, "i64")
    dim = normal_dim(dim, len(x.type.shape))
    places = _order(x, dim, descending)
    return _picked(x, places, dim), places


@translates("aten.sort.stable")
def _stable_sort(
    x: Node, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Node, Node]:
    return sort(x, dim, descending)


@translates("aten.topk.default")
def _topk(
    x: Node, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Node, Node]:
    """The first k of the whole order, or one greatest after the other where k is small"""
    if not x.type.shape:
        return x, scalar(0, "i64")
    dim = normal_dim(dim, len(x.type.shape))
    few = k * (k + 1) <= _STEP * x.type.shape[dim].bit_length() and x.type.dtype != "bool"
    if k and few and largest:
        places = make("cat", *_greatest(x, dim, k), dim=dim) if k > 1 else _greatest(x, dim, 1)[0]
    else:
        places = aten_slice(_order(x, dim, largest), dim, 0, k)
    return _picked(x, places, dim), places


def _greatest(x: Node, dim: int, k: int) -> list[Node]:
    """The places of the k greatest along `dim`, the first among equal ones; NaN is greatest."""
    extent = x.type.shape[dim]
    ramp = reshape(make("iota", size=extent), [extent, *[1] * (len(x.type.shape) - dim - 1)])
    lowest = scalar(identity("maximum", x.type.dtype), x.type.dtype)
    found: list[Node] = []
    taken: Node | None = None
    for _ in range(k):
        left = x if taken is None else make("where", taken, lowest, x)
        hit = make("eq", x, reduce("amax", left, dim))
        hit = make("or", hit, make("isnan", x)) if x.type.is_float else hit
        hit = hit if taken is None else make("and", hit, make("not", taken))
        place = reduce("amin", make("where", hit, ramp, scalar(extent - 1, "i64")), dim)
        found.append(place)
        here = make("eq", ramp, place)
        taken = here if taken is None else make("or", taken, here)
    return found


def _nth(x: Node, places: Node, n: Node, dim: int, keepdim: bool) -> tuple[Node, Node]:
    """The elements whose place in the order is n, which has an extent of 1 along `dim`."""
    place = make("take", places, n, dims=(dim,))
    shape = [s for d, s in enumerate(place.type.shape) if keepdim or d != dim]
    return reshape(_picked(x, place, dim), shape), reshape(place, shape)


@translates("aten.kthvalue.default")
def _kthvalue(x: Node, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Node, Node]:
    if not x.type.shape:
        return x, scalar(0, "i64")
    dim = normal_dim(dim, len(x.type.shape))
    n = reshape(scalar(k - 1, "i64"), [1] * len(x.type.shape))
    shape = tuple(1 if d == dim else s for d, s in enumerate(x.type.shape))
    return _nth(x, _order(x, dim, False), expand(n, shape), dim, keepdim)


def _median_at(x: Node, dim: int, keepdim: bool, skip: bool) -> tuple[Node, Node]:
    """The lower of the two middle values; the first NaN, if there is any, or without them."""
    if not x.type.shape:
        return x, scalar(0, "i64")
    dim = normal_dim(dim, len(x.type.shape))
    extent = x.type.shape[dim]
    if not x.type.is_float:
        return _kthvalue(x, (extent + 1) // 2, dim, keepdim)
    numbers = reduce("sum", cast(make("not", make("isnan", x)), "i64"), dim)
    middle = make("sub", numbers, scalar(1, "i64"))
    middle = make("floor_div", make("maximum", middle, scalar(0, "i64")), scalar(2, "i64"))
    if not skip:  # the first NaN stands behind all numbers
        whole = make("eq", numbers, scalar(extent, "i64"))
        middle = make("where", whole, middle, numbers)
    return _nth(x, _order(x, dim, False), middle, dim, keepdim)


@translates("aten.median.dim")
def _median_dim(x: Node, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    return _median_at(x, dim, keepdim, skip=False)


@translates("aten.nanmedian.dim")
def _nanmedian_dim(x: Node, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    return _median_at(x, dim, keepdim, skip=True)


@translates("aten.median.default")
def _median(x: Node) -> Node:
    return _median_at(reshape(x, [x.type.size]), 0, False, skip=False)[0]


@translates("aten.nanmedian.default")
def _nanmedian(x: Node) -> Node:
    return _median_at(reshape(x, [x.type.size]), 0, False, skip=True)[0]


def _search(sequence: Node, values: Node, right: bool, out_int32: bool) -> Node:
    """A sequence of one dimension serves all values."""
    shape = values.type.shape
    values = reshape(values, shape or (1,))
    if len(sequence.type.shape) == 1:
        values = reshape(values, [values.type.size])
    kinds = (sequence.type.dtype, values.type.dtype)
    if kinds[0] != kinds[1]:
        raise TypeRuleError(f"searchsorted: {kinds[1]} in a sequence of {kinds[0]}")
    found = reshape(make("searchsorted", sequence, values, right=right), shape)
    return cast(found, "i32") if out_int32 else found


@translates("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def _aten_searchsorted(
    sequence: Node,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Node | None = None,
) -> Node:
    if sorter is not None:
        sequence = _picked(sequence, sorter, len(sequence.type.shape) - 1)
    values = tensor(values, sequence.type.dtype) if not isinstance(values, Node) else values
    return _search(sequence, values, right or side == "right", out_int32)


@translates("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def _bucketize(
    values: Any, boundaries: Node, *, out_int32: bool = False, right: bool = False
) -> Node:
    values = tensor(values, boundaries.type.dtype) if not isinstance(values, Node) else values
    return _search(boundaries, values, right, out_int32)
