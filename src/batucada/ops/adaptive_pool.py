"""Adaptive pooling: cell o of `out` cells reads the elements floor(o e / out) to
ceil((o + 1) e / out) of e.  Cells of one size are ordinary windows.  Else means are products with a
small matrix for each dimension, and maxima are taken over as many taps as the largest cell has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops.base import TypeRuleError, make
from batucada.ops.contract import matmul
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.pool import (
    avg_pool,
    avg_pool_backward,
    largest_of,
    max_pool,
    max_pool_backward,
    of_images,
)
from batucada.ops.scatter import put
from batucada.ops.view import permute, reshape


def _cells(extent: int, out: int) -> tuple[Node, Node]:
    """i64 [out]: the first element of each cell, and the one behind its last."""
    cell, cells, elements = make("iota", size=out), scalar(out, "i64"), scalar(extent, "i64")
    start = make("floor_div", make("mul", cell, elements), cells)
    end = make("mul", make("add", cell, scalar(1, "i64")), elements)
    end = make("floor_div", make("add", end, scalar(out - 1, "i64")), cells)
    return start, end


def _even(space: Sequence[int], out: Sequence[int]) -> list[int] | None:
    """The extents of the cells, where all are alike."""
    if any(o == 0 or e % o for e, o in zip(space, out, strict=True)):
        return None
    return [e // o for e, o in zip(space, out, strict=True)]


# ---- means


def _averaging(extent: int, out: int, dtype: DType) -> Node:
    """[extent, out]: 1 / n where element i is one of the n in cell o, else 0"""
    start, end = _cells(extent, out)
    element = reshape(make("iota", size=extent), [extent, 1])
    inside = make("and", make("ge", element, start), make("lt", element, end))
    share = make("reciprocal", cast(make("sub", end, start), dtype))
    return make("where", inside, share, scalar(0, dtype))


def applied(x: Node, matrix: Node, dim: int) -> Node:
    """x with `dim` multiplied by [extent, new extent]"""
    rank = len(x.type.shape)
    order = [d for d in range(rank) if d != dim] + [dim]
    moved = permute(x, order)
    rows = reshape(moved, [-1, moved.type.shape[-1]])
    found = reshape(matmul(rows, matrix), [*moved.type.shape[:-1], matrix.type.shape[1]])
    return permute(found, [order.index(d) for d in range(rank)])


def _mean(x: Node, out: Sequence[int]) -> Node:
    space = x.type.shape[2:]
    even = _even(space, out)
    if even is not None:
        return avg_pool(x, even)
    for d, (extent, cells) in enumerate(zip(space, out, strict=True)):
        x = applied(x, _averaging(extent, cells, x.type.dtype), 2 + d)
    return x


def _mean_backward(grad: Node, x: Node) -> Node:
    space, out = x.type.shape[2:], grad.type.shape[2:]
    even = _even(space, out)
    if even is not None:
        return avg_pool_backward(grad, x, even, even, 0, False, True, None)
    for d, (extent, cells) in enumerate(zip(space, out, strict=True)):
        grad = applied(grad, permute(_averaging(extent, cells, x.type.dtype), (1, 0)), 2 + d)
    return grad


# ---- maxima


def _taps(extent: int, out: int) -> tuple[Node, int]:
    """i64 [out * k], k: the elements of each cell; a smaller one repeats its last."""
    k = max(-(-(o + 1) * extent // out) - o * extent // out for o in range(out))
    start, end = (reshape(edge, [out, 1]) for edge in _cells(extent, out))
    last = make("sub", end, scalar(1, "i64"))
    return reshape(make("minimum", make("add", start, make("iota", size=k)), last), [out * k]), k


def _along(x: Node, dim: int, rank: int) -> Node:
    return reshape(x, [x.type.size if d == dim else 1 for d in range(rank)])


def _largest(x: Node, out: Sequence[int]) -> tuple[Node, Node]:
    """The maxima, and where each lies in its channel, row-major."""
    space = x.type.shape[2:]
    even = _even(space, out)
    if even is not None:
        return max_pool(x, even)
    if 0 in x.type.shape or 0 in out or not x.type.is_float:
        raise TypeRuleError(f"adaptive max pooling of {x.type} to {list(out)}")
    found = [_taps(extent, cells) for extent, cells in zip(space, out, strict=True)]
    rank = 2 + len(space)
    places = [_along(taps, 2 + d, rank) for d, (taps, _) in enumerate(found)]
    numbers = scalar(0, "i64")
    for place, extent in zip(places, space, strict=True):
        numbers = make("add", make("mul", numbers, scalar(extent, "i64")), place)
    taken = make("take", x, *places, dims=tuple(range(2, rank)))
    cells = [e for o, (_, k) in zip(out, found, strict=True) for e in (o, k)]
    taps = reshape(taken, [*x.type.shape[:2], *cells])
    return largest_of(taps, range(3, 2 * rank - 2, 2), reshape(numbers, cells))


def _largest_backward(grad: Node, x: Node, indices: Node) -> Node:
    even = _even(x.type.shape[2:], grad.type.shape[2:])
    if even is not None:
        return max_pool_backward(grad, x, even, even, 0, 1, False, indices)
    rows, extent = x.type.shape[:2], math.prod(x.type.shape[2:])
    flat = [reshape(node, [*rows, -1]) for node in (grad, indices)]
    found = put(full((*rows, extent), 0, grad.type.dtype), flat[0], [flat[1]], (2,), "add")
    return reshape(found, x.type.shape)


for _rank in (2, 3):
    of_images(_rank, f"_adaptive_avg_pool{_rank}d", _mean)
    of_images(_rank, f"_adaptive_avg_pool{_rank}d_backward", _mean_backward)
    of_images(_rank, f"adaptive_max_pool{_rank}d", _largest)
    of_images(_rank, f"adaptive_max_pool{_rank}d_backward", _largest_backward)
