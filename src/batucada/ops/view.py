"""Operations that only say where an element is found: they cost nothing where they can be folded
into an index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import DType, Shape, Type
from batucada.ops.base import (
    Op,
    TypeRuleError,
    broadcast,
    define,
    make,
    normal_dim,
    translates,
)
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast


def _reshape(x: Type, shape: Shape) -> Type:
    if math.prod(shape) != x.size:
        raise TypeRuleError(f"reshape: {x} has {x.size} elements, {shape} has {math.prod(shape)}")
    return Type(x.dtype, shape)


def _permute(x: Type, dims: Shape) -> Type:
    if sorted(dims) != list(range(len(x.shape))):
        raise TypeRuleError(f"permute: {dims} is no permutation of the dimensions of {x}")
    return Type(x.dtype, tuple(x.shape[d] for d in dims))


def _expand(x: Type, shape: Shape) -> Type:
    if broadcast(x.shape, shape) != shape:
        raise TypeRuleError(f"expand: {x} does not broadcast to {shape}")
    return Type(x.dtype, shape)


def _slice(x: Type, dim: int, start: int, stop: int, step: int) -> Type:
    if not 0 <= start <= stop <= x.shape[dim] or step < 1:
        raise TypeRuleError(f"slice: {start}:{stop}:{step} of dimension {dim} of {x}")
    shape = list(x.shape)
    shape[dim] = -(-(stop - start) // step)
    return Type(x.dtype, tuple(shape))


def _slice_ref(x: np.ndarray, dim: int, start: int, stop: int, step: int) -> np.ndarray:
    return x[(slice(None),) * dim + (slice(start, stop, step),)]


def _cat(*xs: Type, dim: int) -> Type:
    shape = list(xs[0].shape)
    for x in xs[1:]:
        rest = x.shape[:dim] + x.shape[dim + 1 :]
        if x.dtype != xs[0].dtype or rest != xs[0].shape[:dim] + xs[0].shape[dim + 1 :]:
            raise TypeRuleError(f"cat along {dim}: {xs[0]} and {x} do not fit")
    shape[dim] = sum(x.shape[dim] for x in xs)
    return Type(xs[0].dtype, tuple(shape))


define(Op("reshape", "view", _reshape, lambda x, shape: x.reshape(shape)))
define(Op("permute", "view", _permute, lambda x, dims: x.transpose(dims)))
define(Op("expand", "view", _expand, lambda x, shape: np.broadcast_to(x, shape)))
define(Op("slice", "view", _slice, _slice_ref))
define(Op("flip", "view", lambda x, dims: x, lambda x, dims: np.flip(x, dims)))
define(Op("cat", "index", _cat, lambda *xs, dim: np.concatenate(xs, dim)))


def reshape(x: Node, shape: Sequence[int]) -> Node:
    """`shape` may hold one -1."""
    known = math.prod(d for d in shape if d >= 0)
    full = tuple(d if d >= 0 else x.type.size // known for d in shape)
    return x if full == x.type.shape else make("reshape", x, shape=full)


def permute(x: Node, dims: Sequence[int]) -> Node:
    rank = len(x.type.shape)
    order = tuple(normal_dim(d, rank) for d in dims)
    return x if order == tuple(range(rank)) else make("permute", x, dims=order)


def expand(x: Node, shape: Sequence[int]) -> Node:
    return x if tuple(shape) == x.type.shape else make("expand", x, shape=tuple(shape))


@translates("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default")
def _view(x: Node, shape: Sequence[int]) -> Node:
    return reshape(x, shape)


@translates("aten.permute.default")
def _aten_permute(x: Node, dims: Sequence[int]) -> Node:
    return permute(x, dims)


@translates("aten.t.default")
def _t(x: Node) -> Node:
    return permute(x, (1, 0)) if len(x.type.shape) == 2 else x


@translates("aten.transpose.int")
def _transpose(x: Node, a: int, b: int) -> Node:
    rank = len(x.type.shape)
    order = list(range(rank))
    a, b = normal_dim(a, rank), normal_dim(b, rank)
    if rank:
        order[a], order[b] = order[b], order[a]
    return permute(x, order)


@translates("aten.expand.default")
def _aten_expand(x: Node, shape: Sequence[int], **_: Any) -> Node:
    missing = len(shape) - len(x.type.shape)
    full = [x.type.shape[i - missing] if d == -1 else d for i, d in enumerate(shape)]
    return expand(x, full)


@translates("aten.unsqueeze.default")
def unsqueeze(x: Node, dim: int) -> Node:
    shape = list(x.type.shape)
    shape.insert(dim % (len(shape) + 1), 1)
    return reshape(x, shape)


@translates("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims")
def _squeeze(x: Node, dims: Sequence[int] | int | None = None) -> Node:
    rank = len(x.type.shape)
    chosen = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    drop = {normal_dim(d, rank) for d in chosen}
    return reshape(x, [s for i, s in enumerate(x.type.shape) if i not in drop or s != 1])


@translates("aten.slice.Tensor")
def aten_slice(
    x: Node, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Node:
    dim = normal_dim(dim, len(x.type.shape))
    first, last, _ = slice(start, stop).indices(x.type.shape[dim])
    last = max(first, last)
    if (first, last) == (0, x.type.shape[dim]) and (step == 1 or last == 1):
        return x
    return make("slice", x, dim=dim, start=first, stop=last, step=step)


@translates("aten.select.int")
def _select(x: Node, dim: int, index: int) -> Node:
    dim = normal_dim(dim, len(x.type.shape))
    index %= x.type.shape[dim]
    part = aten_slice(x, dim, index, index + 1)
    return reshape(part, x.type.shape[:dim] + x.type.shape[dim + 1 :])


@translates(
    "aten.split.Tensor", "aten.unsafe_split.Tensor",
    "aten.split_with_sizes.default", "aten.unsafe_split_with_sizes.default",
)  # fmt: skip
def _split(x: Node, sizes: int | Sequence[int], dim: int = 0) -> list[Node]:
    dim = normal_dim(dim, len(x.type.shape))
    extent = x.type.shape[dim]
    lengths = [sizes] * -(-extent // max(sizes, 1)) if isinstance(sizes, int) else list(sizes)
    starts = np.cumsum([0, *lengths]).tolist()
    return [
        aten_slice(x, dim, a, min(a + n, extent)) for a, n in zip(starts, lengths, strict=False)
    ]


@translates("aten.unbind.int")
def _unbind(x: Node, dim: int = 0) -> list[Node]:
    dim = normal_dim(dim, len(x.type.shape))
    return [_select(x, dim, i) for i in range(x.type.shape[dim])]


@translates("aten.resize.default")
def _resize(x: Node, shape: Sequence[int], **_: Any) -> Node:
    """The first elements in order; PyTorch says nothing of those behind them, which are 0."""
    size = math.prod(shape)
    flat = reshape(x, [x.type.size])
    if size > x.type.size:
        flat = make("cat", flat, _zeros(flat, 0, size - x.type.size), dim=0)
    return reshape(aten_slice(flat, 0, 0, size), shape)


@translates("aten.resize_as.default")
def _resize_as(x: Node, like: Node, **_: Any) -> Node:
    return _resize(x, like.type.shape)


@translates("aten.flip.default")
def _flip(x: Node, dims: Sequence[int]) -> Node:
    return make("flip", x, dims=tuple(sorted(normal_dim(d, len(x.type.shape)) for d in dims)))


@translates("aten.cat.default")
def _aten_cat(xs: Sequence[Node], dim: int = 0) -> Node:
    parts = [x for x in xs if x.type.shape != (0,)] or list(xs[:1])
    return (
        parts[0]
        if len(parts) == 1
        else make("cat", *parts, dim=normal_dim(dim, len(parts[0].type.shape)))
    )


@translates("aten.stack.default")
def _stack(xs: Sequence[Node], dim: int = 0) -> Node:
    return _aten_cat(
        [unsqueeze(x, dim % (len(x.type.shape) + 1)) for x in xs], dim % (len(xs[0].type.shape) + 1)
    )


@translates(
    "aten.alias.default", "aten.detach.default", "aten.clone.default",
    "aten.lift_fresh.default", "aten.lift_fresh_copy.default", "aten.contiguous.default",
    "aten.view_as.default",
)  # fmt: skip
def _alias(x: Node, *_: Any, **__: Any) -> Node:
    return x


@translates("aten._to_copy.default", "aten.to.dtype")
def _to_copy(x: Node | float, dtype: DType | None = None, *_: Any, **__: Any) -> Node:
    """vmap gives a number that it found beside a tensor the dtype of their result."""
    if not isinstance(x, Node):
        return scalar(x, dtype or "f32")
    return x if dtype is None else cast(x, dtype)


def _zeros(like: Node, dim: int, extent: int) -> Node:
    """Zeros of the shape of `like` but for `dim`."""
    shape = tuple(extent if i == dim else s for i, s in enumerate(like.type.shape))
    return expand(scalar(0, like.type.dtype), shape)


def spaced(x: Node, dim: int, step: int) -> Node:
    """`step - 1` zeros between the elements along `dim`: the adjoint of a slice with a step."""
    extent = x.type.shape[dim]
    column = unsqueeze(x, dim + 1)
    gaps = make("cat", column, _zeros(column, dim + 1, step - 1), dim=dim + 1)
    shape = [extent * step if i == dim else s for i, s in enumerate(x.type.shape)]
    return aten_slice(reshape(gaps, shape), dim, 0, (extent - 1) * step + 1)


@translates("aten.slice_backward.default")
def _slice_backward(
    grad: Node, sizes: Sequence[int], dim: int, start: int, stop: int, step: int
) -> Node:
    """Zeros of shape `sizes` with grad where the slice was taken"""
    dim = normal_dim(dim, len(sizes))
    first = slice(start, stop).indices(sizes[dim])[0]
    if 0 in grad.type.shape:
        return expand(scalar(0, grad.type.dtype), sizes)
    return zeros_where_not_taken(grad, tuple(sizes), dim, first, stop, step)


def zeros_where_not_taken(
    x: Node, shape: Shape, dim: int, start: int, stop: int, step: int
) -> Node:
    """`shape` of zeros, but for x at start:stop:step of `dim`."""
    apart = x if step == 1 else spaced(x, dim, step)
    last = start + apart.type.shape[dim]
    parts = [_zeros(x, dim, start), apart, _zeros(x, dim, shape[dim] - last)]
    return _aten_cat([part for part in parts if part.type.shape[dim]], dim)


@translates("aten.roll.default")
def _roll(x: Node, shifts: Sequence[int] | int, dims: Sequence[int] | int = ()) -> Node:
    """Without `dims` the flattened tensor is rolled."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if not dims:
        return reshape(_roll(reshape(x, [x.type.size]), shifts, 0), x.type.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        dim = normal_dim(dim, len(x.type.shape))
        cut = -shift % max(x.type.shape[dim], 1)
        if cut:
            x = make("cat", aten_slice(x, dim, cut), aten_slice(x, dim, 0, cut), dim=dim)
    return x
