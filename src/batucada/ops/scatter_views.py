"""A tensor with other values in the place of a view of it: what an assignment to the view means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batucada.ir.graph import Node
from batucada.ir.types import Shape, row_major
from batucada.ops.base import TypeRuleError, make, normal_dim, translates
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


def _as_slices(
    shape: Shape, size: Sequence[int], stride: Sequence[int], offset: int
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """(start, stop, step) for each dimension of a dense tensor of `shape`, and which dimension each
    of `size` runs along, -1 for an extent of 1.  TypeRuleError where the view is no block."""
    pitch = row_major(shape)
    starts = []
    for extent, step in zip(shape, pitch, strict=True):
        starts.append(offset // step if extent else 0)
        offset -= starts[-1] * step
    slices = [(start, start + 1, 1) for start in starts]
    along: list[int] = []
    for extent, step in zip(size, stride, strict=True):
        fits = [
            d for d, (s, p) in enumerate(zip(shape, pitch, strict=True))
            if s > 1 and step and step % p == 0 and starts[d] + (extent - 1) * (step // p) < s
            and d not in along
        ]  # fmt: skip
        if extent == 1:
            along.append(-1)
            continue
        if not fits:
            raise TypeRuleError(f"as_strided: {size} with strides {stride} is no block of {shape}")
        d = max(fits, key=lambda d: pitch[d])
        along.append(d)
        slices[d] = (starts[d], starts[d] + (extent - 1) * (step // pitch[d]) + 1, step // pitch[d])
    return slices, along


def _dense_order(size: Sequence[int], stride: Sequence[int]) -> list[int] | None:
    """The dimensions from the outermost in memory to the innermost, where they leave no gaps."""
    order = sorted(range(len(size)), key=lambda d: (-stride[d], size[d] == 1))
    pitch = row_major(tuple(size[d] for d in order))
    dense = all(size[d] == 1 or stride[d] == p for d, p in zip(order, pitch, strict=True))
    return order if dense and 0 not in size else None


@translates("aten.as_strided.default")
def _as_strided(
    x: Node, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Node:
    """Slices of dense memory, permuted"""
    order = _dense_order(size, stride)
    if order is not None:
        first = offset or 0
        flat = aten_slice(reshape(x, [x.type.size]), 0, first, first + math.prod(size))
        block = reshape(flat, [size[d] for d in order])
        return permute(block, [order.index(d) for d in range(len(order))])
    slices, along = _as_slices(x.type.shape, size, stride, offset or 0)
    for dim, (start, stop, step) in enumerate(slices):
        x = aten_slice(x, dim, start, stop, step)
    order = [d for d in along if d >= 0]
    order += [d for d in range(len(x.type.shape)) if d not in order]
    return reshape(permute(x, order), list(size))


@translates("aten.as_strided_scatter.default")
def _as_strided_scatter(
    x: Node, src: Node, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Node:
    order = _dense_order(size, stride)
    if order is not None:
        first, flat = offset or 0, reshape(permute(src, order), [src.type.size])
        whole = reshape(x, [x.type.size])
        return reshape(
            slice_scatter(whole, flat, 0, first, first + src.type.size), list(x.type.shape)
        )
    slices, along = _as_slices(x.type.shape, size, stride, offset or 0)
    order = [d for d in along if d >= 0]
    order += [d for d in range(len(x.type.shape)) if d not in order]
    block = [-(-(stop - start) // step) for start, stop, step in slices]
    value = permute(
        reshape(src, [block[d] for d in order]), [order.index(d) for d in range(len(order))]
    )
    return _nested(x, value, list(enumerate(slices)))


def _nested(x: Node, value: Node, slices: list[tuple[int, tuple[int, int, int]]]) -> Node:
    """x with value in the block that the slices cut out, one dimension after the other."""
    if not slices:
        return value
    dim, (start, stop, step) = slices[0]
    inner = _nested(aten_slice(x, dim, start, stop, step), value, slices[1:])
    return slice_scatter(x, inner, dim, start, stop, step)
