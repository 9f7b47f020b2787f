"""Look-ups: values read at computed indices.

Every index is checked where it is made, and the program stops with an error where it is out of
range.  What reads memory by it also keeps the address within the tensor, whatever the index: a
later section may meet an input that was changed since it was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Shape, Type
from batucada.ops.base import Op, TypeRuleError, broadcast, define, make, normal_dim, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.view import aten_slice, permute, reshape


def _check_index(index: Type, size: int, ignore: int, low: int) -> Type:
    if index.dtype[0] not in "iu":
        raise TypeRuleError(f"an index must be an integer, not {index}")
    return index


def _check_ref(index: np.ndarray, size: int, ignore: int, low: int) -> np.ndarray:
    bad = index[(index != ignore) & ((index < low) | (index >= size))]
    if bad.size:
        raise IndexError(f"index {bad.flat[0]} is out of range {low}..{size - 1}")
    return index


define(Op("check_index", "map", _check_index, _check_ref))
"""`index` itself; the program stops with an error where it is neither `ignore` nor in
low..size-1."""


def _take(x: Type, *indices: Type, dims: Shape) -> Type:
    rank = len(x.shape)
    if len(dims) != len(indices) or list(dims) != sorted({d for d in dims if 0 <= d < rank}):
        raise TypeRuleError(f"take: dimensions {dims} of {x} by {len(indices)} indices")
    if any(index.dtype != "i64" or len(index.shape) != rank for index in indices):
        found = ", ".join(map(str, indices))
        raise TypeRuleError(f"take: indices of i64 and of {rank} dimensions, not {found}")
    rest = tuple(1 if d in dims else extent for d, extent in enumerate(x.shape))
    out = Type(x.dtype, broadcast(rest, *(index.shape for index in indices)))
    if out.size and any(x.shape[d] == 0 for d in dims):
        raise TypeRuleError(f"take: an element of an empty dimension of {x}")
    return out


def places(shape: Shape, indices: Sequence[np.ndarray], dims: Shape) -> tuple[np.ndarray, ...]:
    """An index array for each dimension of `shape`: the given one, kept in range, or all of it."""
    given = dict(zip(dims, indices, strict=True))
    return tuple(
        np.clip(given[d], 0, max(extent - 1, 0))
        if d in given
        else np.arange(extent).reshape([-1 if i == d else 1 for i in range(len(shape))])
        for d, extent in enumerate(shape)
    )


def _take_ref(x: np.ndarray, *indices: np.ndarray, dims: Shape) -> np.ndarray:
    return x[places(x.shape, indices, dims)]


define(Op("take", "lookup", _take, _take_ref, flops_per_element=2))
"""take(x, i, j, dims=(a, b))[p] = x[p with i[p] at dimension a and j[p] at b], all broadcast.  An
index out of range counts as the nearest one in range."""


def one_hot(index: Node, dim: int, size: int) -> Node:
    """True where the position along the new dimension `dim` equals the index: bool[..., size,
    ...].
    """
    shape = list(index.type.shape)
    column = reshape(index, [*shape[:dim], 1, *shape[dim:]])
    ramp = reshape(make("iota", size=size), [size] + [1] * (len(shape) - dim))
    return make("eq", column, ramp)


def checked(index: Node, size: int, ignore: int = 0) -> Node:
    """The index as i64, which is in 0 to size - 1 or `ignore`."""
    return make("check_index", cast(index, "i64"), size=size, ignore=ignore, low=0)


def from_either_end(index: Node, size: int) -> Node:
    """The index as i64, where -1 is the last element."""
    index = make("check_index", cast(index, "i64"), size=size, ignore=0, low=-size)
    wrapped = make("add", index, scalar(size, "i64"))
    return make("where", make("lt", index, scalar(0, "i64")), wrapped, index)


@translates("aten.gather.default")
def gather(x: Node, dim: int, index: Node, **_: Any) -> Node:
    """out[i, j] = x[i, index[i, j]] for dim 1; the index may be smaller in the other dimensions"""
    rank = len(x.type.shape)
    dim = normal_dim(dim, rank)
    if rank == 0 or not index.type.shape:
        return reshape(gather(_as_row(x), dim, _as_row(index)), index.type.shape)
    if len(index.type.shape) != rank:
        raise TypeRuleError(f"gather: {index.type} and {x.type} differ in rank")
    for d, extent in enumerate(index.type.shape):
        if d != dim:
            x = aten_slice(x, d, 0, extent)
    return make("take", x, checked(index, x.type.shape[dim]), dims=(dim,))


def _as_row(x: Node) -> Node:
    return x if x.type.shape else reshape(x, (1,))


@translates("aten.index_select.default")
def index_select(x: Node, dim: int, index: Node) -> Node:
    """x[:, index] for dim 1; a single number for a tensor without dimensions"""
    dim = normal_dim(dim, len(x.type.shape))
    if not x.type.shape:
        return reshape(index_select(_as_row(x), 0, index), ())
    column = reshape(index, [-1 if d == dim else 1 for d in range(len(x.type.shape))])
    return make("take", x, checked(column, x.type.shape[dim]), dims=(dim,))


@translates("aten.take.default")
def _flat_take(x: Node, index: Node) -> Node:
    """The elements of x as one row, at `index`"""
    return index_tensor(reshape(x, [x.type.size]), [index])


@dataclass(frozen=True)
class Lookup:
    """x[..., i, :, j, ...] by index tensors that broadcast, in terms of `take` and `put`.

    With k the rank of the broadcast indices, x is seen with k - 1 dimensions of extent 1 before the
    first looked-up one, and each index with as many dimensions of extent 1 behind it as x has
    there.
    """

    source: Shape  # of x as `take` reads it
    indices: list[Node]
    dims: Shape
    taken: Shape  # of what `take` gives
    order: list[int]  # the permutation that brings its dimensions to where PyTorch has them
    result: Shape  # of PyTorch's result: no extents of 1 for the other looked-up dimensions


def lookup(x: Type, indices: Sequence[Node | None]) -> Lookup:
    """TypeRuleError for a mask: the size of its result depends on data."""
    found = {dim: index for dim, index in enumerate(indices) if index is not None}
    if not found or any(index.type.dtype == "bool" for index in found.values()):
        raise TypeRuleError("an index by a mask has a result whose size depends on data")
    whole = broadcast(*(index.type.shape for index in found.values()))
    looked_up = whole or (1,)
    k, first = len(looked_up), min(found)
    before, behind = x.shape[:first], range(first + 1, len(x.shape))
    kept = tuple(x.shape[d] for d in behind if d not in found)
    order = list(range(len(x.shape) + k - 1))
    together = max(found) - first + 1 == len(found)
    if not together:  # then the looked-up dimensions come first
        middle = order[first : first + k]
        order = [*middle, *(d for d in order if d not in middle)]
    return Lookup(
        source=(*before, *[1] * (k - 1), *x.shape[first:]),
        indices=[
            _aligned(from_either_end(index, x.shape[dim]), len(order), len(behind))
            for dim, index in found.items()
        ],
        dims=tuple(dim + k - 1 for dim in found),
        taken=(*before, *looked_up, *(1 if d in found else x.shape[d] for d in behind)),
        order=order,
        result=(*before, *whole, *kept) if together else (*whole, *before, *kept),
    )


def _aligned(index: Node, rank: int, behind: int) -> Node:
    """Of `rank` dimensions: its own, `behind` ones of extent 1 and before it the rest."""
    shape = index.type.shape
    return reshape(index, [*[1] * (rank - len(shape) - behind), *shape, *[1] * behind])


@translates("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index_tensor(x: Node, indices: Sequence[Node | None]) -> Node:
    """x[:, i, :, j] for index tensors that broadcast"""
    found = lookup(x.type, indices)
    taken = make("take", reshape(x, found.source), *found.indices, dims=found.dims)
    return reshape(permute(taken, found.order), found.result)
