"""A tensor with other values in the place of a view of it: what an assignment to the view means."""

from __future__ import annotations

from collections.abc import Sequence

from batucada.ir.graph import Node
from batucada.ops.base import make, normal_dim, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import aten_slice, expand, permute, reshape, unsqueeze, zeros_where_not_taken


def _where_taken(x: Node, dim: int, start: int, stop: int, step: int) -> Node:
    """bool: whether the position along `dim` is one of start, start + step, ... before stop"""
    extent = x.type.shape[dim]
    position = make("iota", size=extent)
    taken = make("ge", position, scalar(start, "i64"))
    taken = make("and", taken, make("lt", position, scalar(stop, "i64")))
    if step > 1:
        steps = make("sub", position, scalar(start, "i64"))
        rest = make("remainder", steps, scalar(step, "i64"))
        taken = make("and", taken, make("eq", rest, scalar(0, "i64")))
    return reshape(taken, [extent] + [1] * (len(x.type.shape) - dim - 1))


@translates("aten.slice_scatter.default")
def slice_scatter(
    x: Node, src: Node, dim: int = 0, start: int | None = None, stop: int | None = None,
    step: int = 1,
) -> Node:  # fmt: skip
    """x with x[..., start:stop:step, ...] = src"""
    dim = normal_dim(dim, len(x.type.shape))
    first, last, _ = slice(start, stop).indices(x.type.shape[dim])
    if last <= first:
        return x
    src = cast(src, x.type.dtype)
    if step == 1:
        parts = [aten_slice(x, dim, 0, first), src, aten_slice(x, dim, last)]
        parts = [part for part in parts if part.type.shape[dim]]
        return make("cat", *parts, dim=dim) if len(parts) > 1 else src
    spread = zeros_where_not_taken(src, x.type.shape, dim, first, last, step)
    return make("where", _where_taken(x, dim, first, last, step), spread, x)


@translates("aten.select_scatter.default")
def _select_scatter(x: Node, src: Node, dim: int, index: int) -> Node:
    """x with x[..., index, ...] = src"""
    dim = normal_dim(dim, len(x.type.shape))
    index %= x.type.shape[dim]
    return slice_scatter(x, unsqueeze(src, dim), dim, index, index + 1)


@translates("aten.select_backward.default")
def _select_backward(grad: Node, sizes: Sequence[int], dim: int, index: int) -> Node:
    """Zeros of shape `sizes` with grad where it was selected"""
    return _select_scatter(full(tuple(sizes), 0, grad.type.dtype), grad, dim, index)


@translates("aten.tril.default")
def _tril(x: Node, diagonal: int = 0) -> Node:
    """x on and below a diagonal, zeros above it"""
    return make("where", make("le", _off_diagonal(x), scalar(diagonal, "i64")), x, _zero(x))


@translates("aten.triu.default")
def _triu(x: Node, diagonal: int = 0) -> Node:
    """x on and above a diagonal, zeros below it"""
    return make("where", make("ge", _off_diagonal(x), scalar(diagonal, "i64")), x, _zero(x))


def _zero(x: Node) -> Node:
    return scalar(0, x.type.dtype)


def _off_diagonal(x: Node) -> Node:
    """The column less the row of an element of a matrix, i64[rows, columns]"""
    rows, columns = x.type.shape[-2:]
    return make("sub", make("iota", size=columns), reshape(make("iota", size=rows), [rows, 1]))


def _diagonal_last(x: Node, dim1: int, dim2: int) -> tuple[Node, list[int]]:
    """x with the two dimensions last, and the permutation that did it."""
    rank = len(x.type.shape)
    dim1, dim2 = normal_dim(dim1, rank), normal_dim(dim2, rank)
    order = [d for d in range(rank) if d not in (dim1, dim2)] + [dim1, dim2]
    return permute(x, order), order


def _diagonal_range(rows: int, columns: int, offset: int) -> tuple[int, int]:
    """The first row of the diagonal, and its length."""
    first = max(0, -offset)
    return first, max(0, min(rows - first, columns - max(0, offset)))


def _on_diagonal(rows: int, columns: int, offset: int) -> Node:
    row = reshape(make("add", make("iota", size=rows), scalar(offset, "i64")), [rows, 1])
    return make("eq", row, make("iota", size=columns))


@translates("aten.diagonal.default")
def _diagonal(x: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    """sum over columns of where(on the diagonal, x, 0), the rows that have a place on it"""
    turned, _ = _diagonal_last(x, dim1, dim2)
    rows, columns = turned.type.shape[-2:]
    first, length = _diagonal_range(rows, columns, offset)
    picked = make("where", _on_diagonal(rows, columns, offset), turned, scalar(0, x.type.dtype))
    last = len(turned.type.shape) - 1
    found = cast(reduce("sum", picked, (last,), keepdim=False), x.type.dtype)
    return aten_slice(found, last - 1, first, first + length)


@translates("aten.diagonal_scatter.default")
def _diagonal_scatter(x: Node, src: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    turned, order = _diagonal_last(x, dim1, dim2)
    rows, columns = turned.type.shape[-2:]
    first, length = _diagonal_range(rows, columns, offset)
    if not length:
        return x
    shape = turned.type.shape[:-1]
    spread = zeros_where_not_taken(src, shape, len(shape) - 1, first, first + length, 1)
    on = _on_diagonal(rows, columns, offset)
    new = make("where", on, expand(unsqueeze(spread, len(shape)), turned.type.shape), turned)
    return permute(new, [order.index(d) for d in range(len(order))])


@translates("aten.diagonal_backward.default")
def _diagonal_backward(grad: Node, sizes: Sequence[int], offset: int, dim1: int, dim2: int) -> Node:
    zeros = expand(scalar(0, grad.type.dtype), sizes)
    return _diagonal_scatter(zeros, grad, offset, dim1, dim2)
