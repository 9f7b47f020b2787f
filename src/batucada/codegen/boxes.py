"""Stages that put tensors and constants side by side: `cat` and `pad`.

The result is cut into boxes, each of which is filled from one argument or with one value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import flat
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index, Literal
from batucada.ir.types import Shape


@dataclass(frozen=True, slots=True)
class _Box:
    """`extents` elements from `start` on; `source` is read from its own beginning on, None stands
    for the constant."""

    start: Shape
    extents: Shape
    source: Node | None


class Boxes:
    """Writes the kernel of a cat or a pad."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        found = _parts(self.node) if self.node.op == "cat" else _padded(self.node)
        self.boxes = [box for box in found if 0 not in box.extents]
        self.shape = self.node.type.shape

    def write(self) -> None:
        """A loop over the first dimensions, which all boxes have whole, and the boxes in it."""
        shared = 0
        while shared < len(self.shape) - 1 and all(
            box.extents[shared] == self.shape[shared] for box in self.boxes
        ):
            shared += 1
        self._shared([], shared)

    def _shared(self, at: list[Index], left: int) -> None:
        if left:
            parallel = self.emitter.stage.parallel and not at
            extent = self.shape[len(at)]
            with self.emitter.loop(f"d{len(at)}", 0, extent, 1, parallel) as index:
                return self._shared([*at, index], left - 1)
        for number, box in enumerate(self.boxes):
            self._fill(f"c{number}", box, at)
        return None

    def _fill(self, name: str, box: _Box, at: list[Index]) -> None:
        if len(at) < len(box.extents) - 1:
            extent = box.extents[len(at)]
            with self.emitter.loop(f"{name}_{len(at)}", 0, extent) as index:
                return self._fill(name, box, [*at, index])
        last = box.extents[-1]
        whole = last - last % LANES
        if whole:
            with self.emitter.loop(f"{name}_v", 0, whole, LANES) as index:
                self._copy(box, [*at, index + LANE], LANES)
        for start, lanes in segments(last):
            self._copy(box, [*at, Index(start) + (LANE if lanes > 1 else 0)], lanes)
        return None

    def _copy(self, box: _Box, at: list[Index], lanes: int) -> None:
        target = [index + start for index, start in zip(at, box.start, strict=True)]
        value: Expr
        if box.source is None:
            dtype = self.node.type.dtype
            number = self.node.attr("value")
            assert isinstance(number, int | float)
            value = Literal(number, dtype)
            value = Apply("splat", (value,), dtype, lanes) if lanes > 1 else value
        else:
            value = self.emitter.value(box.source, tuple(at), lanes)
        self.emitter.store(self.root.buffer, flat(self.shape, target), value, lanes)


def _parts(node: Node) -> Iterator[_Box]:
    dim, start = node.integer("dim"), 0
    for arg in node.args:
        offset = tuple(start if d == dim else 0 for d in range(len(arg.type.shape)))
        yield _Box(offset, arg.type.shape, arg)
        start += arg.type.shape[dim]


def _padded(node: Node) -> Iterator[_Box]:
    """The border, a pair of slabs for each dimension, and the argument within."""
    low, high = node.integers("low"), node.integers("high")
    start, extents = [0] * len(low), list(node.type.shape)
    for d, (before, behind) in enumerate(zip(low, high, strict=True)):
        for first, width in ((0, before), (extents[d] - behind, behind)):
            slab = [width if i == d else e for i, e in enumerate(extents)]
            corner = [first if i == d else s for i, s in enumerate(start)]
            yield _Box(tuple(corner), tuple(slab), None)
        start[d] = before
        extents[d] -= before + behind
    yield _Box(tuple(start), tuple(extents), node.args[0])
