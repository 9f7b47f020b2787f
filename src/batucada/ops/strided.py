"""Views of memory by strides, and assignments to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batucada.ir.graph import Node
from batucada.ir.types import Shape, row_major
from batucada.ops.base import make, translates
from batucada.ops.create import full, scalar
from batucada.ops.scatter import put
from batucada.ops.scatter_views import slice_scatter
from batucada.ops.view import aten_slice, permute, reshape
from batucada.ops.window import window


def _as_slices(
    shape: Shape, size: Sequence[int], stride: Sequence[int], offset: int
) -> tuple[list[tuple[int, int, int]], list[int]] | None:
    """(start, stop, step) for each dimension of a dense tensor of `shape`, and which dimension each
    of `size` runs along, -1 for an extent of 1.  None where the view is no block."""
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
            return None
        d = max(fits, key=lambda d: pitch[d])
        along.append(d)
        slices[d] = (starts[d], starts[d] + (extent - 1) * (step // pitch[d]) + 1, step // pitch[d])
    return slices, along


def _as_windows(x: Node, size: Sequence[int], stride: Sequence[int], offset: int) -> Node | None:
    """Frames that overlap along rows, the last two of `size`; None where it is something else."""
    if len(size) < 2 or stride[-1] != 1 or stride[-2] < 1 or 0 in size:
        return None
    *leading, count, taps = size
    rows = math.prod(leading)
    long = [(extent, step) for extent, step in zip(leading, stride, strict=False) if extent > 1]
    pitch = long[-1][1] if long else x.type.size
    dense = [step * pitch for step in row_major(tuple(extent for extent, _ in long))]
    used = offset + (count - 1) * stride[-2] + taps
    if [step for _, step in long] != dense or used > pitch or rows * pitch > x.type.size:
        return None
    flat = aten_slice(reshape(x, [x.type.size]), 0, 0, rows * pitch)
    part = aten_slice(reshape(flat, [rows, pitch]), 1, offset, used)
    return reshape(window(part, [1], [taps], [stride[-2]], [1]), list(size))


def _positions(size: Sequence[int], stride: Sequence[int], offset: int) -> Node:
    """Where each element is in memory: i64 [size]"""
    places = full(tuple(size), offset, "i64")
    for dim, (extent, step) in enumerate(zip(size, stride, strict=True)):
        ramp = make("mul", make("iota", size=extent), scalar(step, "i64"))
        places = make("add", places, reshape(ramp, [extent] + [1] * (len(size) - dim - 1)))
    return places


def _taken(x: Node, size: Sequence[int], stride: Sequence[int], offset: int) -> Node:
    places = reshape(_positions(size, stride, offset), [math.prod(size)])
    flat = reshape(x, [x.type.size])
    return reshape(make("take", flat, places, dims=(0,)), list(size))


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
    """Slices of dense memory, permuted; windows; else a look-up"""
    order = _dense_order(size, stride)
    if order is not None:
        first = offset or 0
        flat = aten_slice(reshape(x, [x.type.size]), 0, first, first + math.prod(size))
        block = reshape(flat, [size[d] for d in order])
        return permute(block, [order.index(d) for d in range(len(order))])
    block = _as_slices(x.type.shape, size, stride, offset or 0)
    if block is None:
        frames = _as_windows(x, size, stride, offset or 0)
        return _taken(x, size, stride, offset or 0) if frames is None else frames
    slices, along = block
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
    found = _as_slices(x.type.shape, size, stride, offset or 0)
    if found is None:
        places = reshape(_positions(size, stride, offset or 0), [-1])
        flat, values = reshape(x, [x.type.size]), reshape(src, [src.type.size])
        return reshape(put(flat, values, [places], (0,), "assign"), x.type.shape)
    slices, along = found
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
