"""Stages that write values at computed indices: `put`.

The target is filled from what it was before, then the values follow one after the other in their
order, so that the last of several to one place wins and sums are always added up alike.  Threads
share a dimension that no index moves along: whole slabs of it, or blocks of the last dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.halves import apply_op
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import Position, broadcast_index, flat
from batucada.ir.loops import Index
from batucada.ir.types import Shape

_BLOCK = 64  # the widest block of the last dimension that a thread takes at a time, in elements


@dataclass(frozen=True, slots=True)
class _Range:
    start: Index
    extent: int


class Put:
    """Writes the kernel of a put."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.x, self.values, *self.indices = self.node.args
        self.dims = self.node.integers("dims")
        self.shape, self.given = self.x.type.shape, self.values.type.shape
        self.free = [
            d
            for d, extent in enumerate(self.shape)
            if d not in self.dims and extent > 1 and self.given[d] == extent
        ]

    def write(self) -> None:
        dim, step = self._split()
        if dim is None:
            return self._slab({})
        with self.emitter.loop("part", 0, self.shape[dim], step, self.emitter.stage.parallel) as at:
            self._slab({dim: _Range(at, step)})
        return None

    def _split(self) -> tuple[int | None, int]:
        """The dimension that is cut into parts, and the extent of a part."""
        last = len(self.shape) - 1
        outer = next((d for d in self.free if d != last), None)
        if outer is not None:
            return outer, 1
        extent = self.shape[last] if last in self.free else 0
        blocks = [width for width in (_BLOCK, _BLOCK // 2, _BLOCK // 4) if extent % width == 0]
        return (last, blocks[0]) if extent and blocks else (None, 0)

    def _slab(self, parts: dict[int, _Range]) -> None:
        self._over("c", self.shape, parts, True, self._copy)
        along = all(index.type.shape[-1:] == (1,) for index in self.indices)
        vectors = along and len(self.shape) - 1 in self.free
        self._over("i", self.given, parts, vectors, self._combine)

    def _over(
        self,
        name: str,
        shape: Shape,
        parts: dict[int, _Range],
        vectors: bool,
        body: Callable[[Position, int], None],
    ) -> None:
        """A loop for each dimension; the last one in vectors, if asked."""
        ranges = [parts.get(d, _Range(Index(), extent)) for d, extent in enumerate(shape)]

        def loops(at: Position, left: list[_Range]) -> None:
            if not left or (len(left) == 1 and vectors):
                return self._along(name, at, left, body)
            with self.emitter.loop(f"{name}{len(at)}", 0, left[0].extent) as index:
                return loops((*at, left[0].start + index), left[1:])

        loops((), ranges)

    def _along(
        self, name: str, at: Position, left: list[_Range], body: Callable[[Position, int], None]
    ) -> None:
        if not left:
            return body(at, 1)
        (last,) = left
        whole = last.extent - last.extent % LANES
        if whole:
            with self.emitter.loop(f"{name}v", 0, whole, LANES) as index:
                body((*at, last.start + index + LANE), LANES)
        for start, lanes in segments(last.extent):
            body((*at, last.start + start + (LANE if lanes > 1 else 0)), lanes)
        return None

    def _copy(self, at: Position, lanes: int) -> None:
        value = self.emitter.value(self.x, at, lanes)
        self.emitter.store(self.root.buffer, flat(self.shape, at), value, lanes)

    def _combine(self, at: Position, lanes: int) -> None:
        emitter = self.emitter
        target = [Index() if extent == 1 else i for extent, i in zip(self.shape, at, strict=True)]
        for dim, index in zip(self.dims, self.indices, strict=True):
            place = broadcast_index(index.type.shape, at)
            target[dim] = emitter.address(index, place, self.shape[dim])
        place = flat(self.shape, target)
        value = emitter.value(self.values, at, lanes)
        mode = str(self.node.attr("mode"))
        if mode != "assign":
            before = emitter.load(self.root.buffer, place, lanes)
            value = apply_op(mode, (before, value), self.node.type.dtype)
        emitter.store(self.root.buffer, place, value, lanes)
