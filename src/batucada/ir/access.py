"""Views as index maps: where the element of a view at some index lies in the tensor below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batucada.ir.graph import Node
from batucada.ir.loops import Index
from batucada.ir.types import Shape, row_major

Position = tuple[Index, ...]

ZERO = Index()


def through_view(view: Node, at: Sequence[Index]) -> Position | None:
    """The index into `view.args[0]`; None where it is no affine one (a reshape that mixes
    dimensions).
    """
    source = view.args[0].type.shape
    if view.op == "expand":
        return broadcast_index(source, at)
    if view.op == "permute":
        found = {dim: at[i] for i, dim in enumerate(view.integers("dims"))}
        return tuple(found[dim] for dim in range(len(source)))
    if view.op == "slice":
        dim, start, step = (view.integer(key) for key in ("dim", "start", "step"))
        return tuple(index * step + start if i == dim else index for i, index in enumerate(at))
    if view.op == "window":
        position = list(at[: len(source)])
        taps = at[len(source) :]
        numbers = (view.integers(key) for key in ("dims", "steps", "dilations"))
        for tap, dim, step, dilation in zip(taps, *numbers, strict=True):
            position[dim] = position[dim] * step + tap * dilation
        return tuple(position)
    if view.op == "border":
        return tuple(i + -before for i, before in zip(at, view.integers("low"), strict=True))
    if view.op == "flip":
        turned = view.integers("dims")
        return tuple(i * -1 + (source[d] - 1) if d in turned else i for d, i in enumerate(at))
    if view.op == "all_reduce":
        return tuple(at)
    return _through_reshape(source, view.type.shape, at)


def broadcast_index(shape: Shape, at: Sequence[Index]) -> Position:
    """The index of an argument of `shape` when the broadcast result is read at `at`."""
    tail = at[len(at) - len(shape) :]
    return tuple(ZERO if extent == 1 else index for extent, index in zip(shape, tail, strict=True))


def nontrivial(shape: Shape) -> Shape:
    """The extents other than 1, in order."""
    return tuple(extent for extent in shape if extent != 1)


def spread(shape: Shape, at: Sequence[Index]) -> Position:
    """Indices of the nontrivial dimensions, set among zeros for the extents of 1."""
    rest = iter(at)
    return tuple(ZERO if extent == 1 else next(rest) for extent in shape)


def flat(shape: Shape, at: Sequence[Index]) -> Index:
    """The row-major offset, in elements."""
    total = ZERO
    for index, stride in zip(at, row_major(shape), strict=True):
        total = total + index * stride
    return total


def _through_reshape(source: Shape, shape: Shape, at: Sequence[Index]) -> Position | None:
    if nontrivial(source) != nontrivial(shape):
        return _unflattened(source, shape, at)
    kept = [index for extent, index in zip(shape, at, strict=True) if extent != 1]
    return spread(source, kept)


def _unflattened(source: Shape, shape: Shape, at: Sequence[Index]) -> Position | None:
    """Splitting dimensions of the source is affine: [12] read as [3, 4] is at 4 * i + j."""
    result: list[Index] = []
    dims = [(e, i) for e, i in zip(shape, at, strict=True) if e != 1]
    for extent in source:
        total, size = ZERO, 1
        while size < extent and dims:
            inner, index = dims.pop(0)
            total, size = total * inner + index, size * inner
        if size != extent:
            return None
        result.append(total)
    return tuple(result)


def memory_index(
    node: Node, at: Sequence[Index], in_memory: Callable[[Node], bool]
) -> tuple[Node, Index] | None:
    """The value in memory that the views down from `node` read, and the offset there in elements.

    Values in memory are dense, so a reshape of one is read at its own row-major offset.  None where
    there is a computation, or a view of no affine index, above the first value in memory.
    """
    position: Sequence[Index] = at
    while not in_memory(node):
        if node.op not in VIEWS:
            return None
        source = node.args[0]
        below = through_view(node, position)
        if below is None:
            return (source, flat(node.type.shape, position)) if in_memory(source) else None
        node, position = source, below
    return node, flat(node.type.shape, position)


VIEWS = frozenset(
    {"reshape", "permute", "expand", "slice", "flip", "window", "border", "all_reduce"}
)


def below_views(node: Node) -> Node:
    """The value that the views down from `node` read."""
    while node.op in VIEWS:
        node = node.args[0]
    return node
