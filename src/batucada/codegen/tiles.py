"""Products of small matrices in scratch memory, by a register-tiled micro-kernel.

A tile of sums stays in registers while the depth runs; 12 vectors of sums leave room for the right
operand and one spread value, and hide the latency of the fused multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES
from batucada.ir.loops import Apply, Expr, Index, Literal, Register
from batucada.ir.types import DType

PANEL = 2 * LANES
_UNROLL = 4


@dataclass(frozen=True, slots=True)
class Scratch:
    """A buffer of a kernel."""

    emitter: Emitter
    buffer: str
    dtype: DType

    def get(self, index: Index, lanes: int = 1) -> Register:
        """`lanes` neighbouring elements."""
        at = index + LANE if lanes > 1 else index
        register = self.emitter.fresh("x", self.dtype, lanes)
        return self.emitter.assign(register, self.emitter.load(self.buffer, at, lanes))

    def put(self, index: Index, value: Expr, lanes: int = 1) -> None:
        at = index + LANE if lanes > 1 else index
        self.emitter.store(self.buffer, at, value, lanes)

    def fill(self, start: Index, count: int, value: float) -> None:
        """`count` is a whole number of vectors."""
        with self.emitter.loop("z", 0, count, LANES) as at:
            self.put(start + at, Literal(value, self.dtype), LANES)


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix at `base`, row by row."""

    base: Index
    columns: int

    def panel(self, column: Index, _width: int) -> tuple[Index, int]:
        """Where the columns from `column` on begin, and the distance between their rows."""
        return self.base + column, self.columns


@dataclass(frozen=True, slots=True)
class Panels:
    """A matrix of `depth` rows at `base`, in panels of columns, so that what a tile reads is dense;
    the last panel may be narrower.
    """

    base: Index
    depth: int
    columns: int

    def panel(self, column: Index, width: int) -> tuple[Index, int]:
        return self.base + column * self.depth, width

    def place(self, row: Index, column: int) -> Index:
        first = column - column % PANEL
        width = min(PANEL, self.columns - first)
        return self.base + first * self.depth + row * width + (column - first)


@dataclass(frozen=True, slots=True)
class Turned:
    """The transpose of a matrix that lies row by row: its own rows are `columns` apart in depth."""

    base: Index
    columns: int


@dataclass(frozen=True, slots=True)
class Product:
    """out (+)= left @ right, for `rows` x `columns` elements and `depth` terms.  A limit ends its
    loop early; whole steps of the loop are done.  `tile` is rows x vectors of sums.
    """

    scratch: Scratch
    left: Rows | Turned
    right: Rows | Panels
    out: Rows
    rows: int
    columns: int
    depth: int
    add: bool
    tile: tuple[int, int] = (6, 2)
    row_limit: Index | None = None
    column_limit: Index | None = None
    depth_limit: Index | None = None

    def write(self) -> None:
        height, width = self.tile[0], self.tile[1] * LANES
        loop = self.scratch.emitter.loop
        for start, stop, wide in _pieces(self.columns, width):
            with loop("n", start, stop, wide, limit=self.column_limit) as column:
                for first, last, high in _pieces(self.rows, height):
                    with loop("m", first, last, high, limit=self.row_limit) as row:
                        self._tile(row, high, column, wide)

    def _tile(self, row: Index, height: int, column: Index, width: int) -> None:
        sums = {
            (r, v): self._start(row + r, column + v * LANES)
            for r in range(height)
            for v in range(width // LANES)
        }
        whole = self.depth - self.depth % _UNROLL
        assert self.depth_limit is None or whole == self.depth
        with self.scratch.emitter.loop("k", 0, whole, _UNROLL, limit=self.depth_limit) as k:
            for step in range(min(whole, _UNROLL)):
                self._step(row, column, width, k + step, sums)
        for step in range(whole, self.depth):
            self._step(row, column, width, Index(step), sums)
        for (r, v), total in sums.items():
            self.scratch.put(self._place(row + r, column + v * LANES), total, LANES)

    def _place(self, row: Index, column: Index) -> Index:
        return self.out.base + row * self.out.columns + column

    def _start(self, row: Index, column: Index) -> Register:
        if self.add:
            return self.scratch.get(self._place(row, column), LANES)
        dtype, emitter = self.scratch.dtype, self.scratch.emitter
        zero = Apply("splat", (Literal(0.0, dtype),), dtype, LANES)
        return emitter.assign(emitter.fresh("sum", dtype, LANES), zero)

    def _step(
        self,
        row: Index,
        column: Index,
        width: int,
        k: Index,
        sums: dict[tuple[int, int], Register],
    ) -> None:
        start, stride = self.right.panel(column, width)
        at = start + k * stride
        right = [self.scratch.get(at + v * LANES, LANES) for v in range(width // LANES)]
        for r in range(1 + max(r for r, _ in sums)):
            value = self.scratch.get(self._left(row + r, k))
            spread = Apply("splat", (value,), value.dtype, LANES)
            for v, b in enumerate(right):
                total = sums[r, v]
                fused = Apply("fma", (spread, b, total), total.dtype, LANES)
                self.scratch.emitter.assign(total, fused)

    def _left(self, row: Index, k: Index) -> Index:
        if isinstance(self.left, Rows):
            return self.left.base + row * self.left.columns + k
        return self.left.base + k * self.left.columns + row


def _pieces(extent: int, step: int) -> Iterator[tuple[int, int, int]]:
    """start, stop and step of the whole steps, and of the rest."""
    whole = extent - extent % step
    for start, stop, size in ((0, whole, step), (whole, extent, extent - whole)):
        if start < stop:
            yield start, stop, size
