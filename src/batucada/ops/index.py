"""Operations that look elements up by computed indices.  Every index is checked before it is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Type
from batucada.ops.base import Op, TypeRuleError, define, make, normal_dim, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import expand, reshape, unsqueeze


def _check_index(index: Type, size: int, ignore: int) -> Type:
    if index.dtype[0] not in "iu":
        raise TypeRuleError(f"an index must be an integer, not {index}")
    return index


def _check_ref(index: np.ndarray, size: int, ignore: int) -> np.ndarray:
    bad = index[(index != ignore) & ((index < 0) | (index >= size))]
    if bad.size:
        raise IndexError(f"index {bad.flat[0]} is out of range 0..{size - 1}")
    return index


define(Op("check_index", "map", _check_index, _check_ref))
"""`index` itself; the program stops with an error where it is neither `ignore` nor in 0..size-1."""


def one_hot(index: Node, dim: int, size: int) -> Node:
    """True where the position along the new dimension `dim` equals the index: bool[..., size,
    ...].
    """
    shape = list(index.type.shape)
    column = reshape(index, [*shape[:dim], 1, *shape[dim:]])
    ramp = reshape(make("iota", size=size), [size] + [1] * (len(shape) - dim))
    return make("eq", column, ramp)


def checked(index: Node, size: int, ignore: int = -1) -> Node:
    return make("check_index", cast(index, "i64"), size=size, ignore=ignore)


@translates("aten.gather.default")
def _gather(x: Node, dim: int, index: Node, **_: Any) -> Node:
    """As a masked sum along `dim`: the index never becomes an address."""
    dim = normal_dim(dim, len(x.type.shape))
    if any(
        a != b
        for i, (a, b) in enumerate(zip(x.type.shape, index.type.shape, strict=True))
        if i != dim
    ):
        raise TypeRuleError(f"gather: only dimension {dim} of {x.type} and {index.type} may differ")
    hit = one_hot(checked(index, x.type.shape[dim]), dim + 1, x.type.shape[dim])
    source = reshape(x, [*x.type.shape[:dim], 1, *x.type.shape[dim:]])
    picked = make("where", hit, source, scalar(0, x.type.dtype))
    return reduce("sum", picked, dim + 1, keepdim=False)


def _the_index(indices: Sequence[Node | None]) -> tuple[int, Node]:
    """The one index tensor of x[:, ..., index] and the dimension it looks up."""
    found = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(found) != 1 or found[0][1].type.dtype == "bool":
        raise TypeRuleError("an index by several tensors or by a mask cannot be compiled")
    return found[0]


def _hits(x: Node, dim: int, index: Node) -> Node:
    """bool [1 (dim times), *index, size, 1, ...]: the position along `dim` is the index"""
    size, rest = x.type.shape[dim], len(x.type.shape) - dim - 1
    hit = one_hot(checked(_from_end(index, size), size), len(index.type.shape), size)
    return reshape(hit, [*[1] * dim, *hit.type.shape, *[1] * rest])


@translates("aten.index_put.default")
def _index_put(
    x: Node, indices: Sequence[Node | None], values: Node, accumulate: bool = False
) -> Node:
    """x with values added at the indices: the adjoint of a look-up"""
    dim, index = _the_index(indices)
    if not accumulate:
        raise TypeRuleError("an assignment by an index tensor cannot be compiled")
    rank = len(index.type.shape)
    shape = (*x.type.shape[:dim], *index.type.shape, *x.type.shape[dim + 1 :])
    added = unsqueeze(expand(values, shape), dim + rank)
    picked = make("where", _hits(x, dim, index), added, scalar(0, x.type.dtype))
    looked_up = tuple(range(dim, dim + rank))
    return make("add", x, reduce("sum", picked, looked_up, keepdim=False) if rank else picked)


@translates("aten.index.Tensor")
def _index(x: Node, indices: Sequence[Node | None]) -> Node:
    """x[:, ..., index] for one index tensor, as a masked sum over the dimension it looks up."""
    dim, index = _the_index(indices)
    shape, rank = x.type.shape, len(index.type.shape)
    source = reshape(x, [*shape[:dim], *[1] * rank, *shape[dim:]])
    picked = make("where", _hits(x, dim, index), source, scalar(0, x.type.dtype))
    return reduce("sum", picked, dim + rank, keepdim=False)


def _from_end(index: Node, size: int) -> Node:
    """-1 is the last element"""
    index = cast(index, "i64")
    wrapped = make("add", index, scalar(size, "i64"))
    return make("where", make("lt", index, scalar(0, "i64")), wrapped, index)


@translates("aten.scatter.src")
def _scatter(x: Node, dim: int, index: Node, src: Node) -> Node:
    """x with src[..., 0, ...] at the one index along `dim`"""
    dim = normal_dim(dim, len(x.type.shape))
    rest = [i for i in range(len(x.type.shape)) if i != dim]
    fits = all(x.type.shape[i] == index.type.shape[i] for i in rest)
    if not fits or index.type.shape[dim] != 1 or src.type.shape != index.type.shape:
        raise TypeRuleError(
            f"scatter: one index along dimension {dim} at a time, not {index.type} of {x.type}"
        )
    ramp = reshape(make("iota", size=x.type.shape[dim]), [-1] + [1] * (len(x.type.shape) - dim - 1))
    return make("where", make("eq", checked(index, x.type.shape[dim]), ramp), src, x)


@translates("aten.scatter_add.default")
def _scatter_add(x: Node, dim: int, index: Node, src: Node) -> Node:
    """x plus, along `dim`, the sum of all src whose index it is"""
    dim = normal_dim(dim, len(x.type.shape))
    rest = [i for i in range(len(x.type.shape)) if i != dim]
    fits = all(x.type.shape[i] == index.type.shape[i] for i in rest)
    if not fits or src.type.shape != index.type.shape:
        raise TypeRuleError(f"scatter_add: {index.type} and {src.type} do not fit {x.type}")
    hit = one_hot(checked(index, x.type.shape[dim]), dim, x.type.shape[dim])
    picked = make("where", hit, unsqueeze(src, dim), scalar(0, x.type.dtype))
    return make("add", x, reduce("sum", picked, dim + 1, keepdim=False))


@translates("aten.scatter.value")
def _scatter_value(x: Node, dim: int, index: Node, value: Any) -> Node:
    dim = normal_dim(dim, len(x.type.shape))
    if index.type.shape[dim] != 1:
        raise TypeRuleError(f"scatter: one index along dimension {dim} at a time, not {index.type}")
    index = checked(index, x.type.shape[dim])
    ramp = reshape(make("iota", size=x.type.shape[dim]), [-1] + [1] * (len(x.type.shape) - dim - 1))
    return make("where", make("eq", index, ramp), scalar(value, x.type.dtype), x)
