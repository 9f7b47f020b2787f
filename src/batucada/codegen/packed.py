"""Large products: blocks of columns and of K, with the operands copied as the tiles read them.

The order is that of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM
TOMS 34, 2008): a block of the right operand is copied panel by panel, so that a panel is dense and
stays in the first-level cache while every row passes over it; blocks of columns are shared among
threads, each with copies of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from batucada.codegen.contract import Loop
from batucada.codegen.cut import Cut, Span
from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES
from batucada.ir.access import Position, below_views, flat, memory_index
from batucada.ir.loops import Expr, Index

_FEW_ROWS = 64  # up to here the time it takes to bring a stored panel near counts
_AHEAD = 8  # steps of k in which it comes: asked for a page ahead, a Zen 4 reads half as fast


class Packed(Cut):
    """Writes the kernel of a contract stage whose tile is `packed`."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        assert not any(e == 0 for e in self.over)
        self.width = self.tile.vectors * LANES
        self.few = math.prod(self.shape[:-1]) <= _FEW_ROWS
        self.rest = 1
        for extent in self.over[1:]:
            self.rest *= extent
        self.depth = self.tile.k_block * self.rest  # steps of k in a block
        self.every = self.spans  # all steps: what is copied of the right operand
        self.block = Index()  # the number of the block of columns
        self.columns = Index()  # ... and its first column
        self.k0 = Index()
        self.panel = Index()  # the first column of the panel within the block
        self.row0: Index | None = None  # the first of a block of rows

    def write_columns(self, start: int, stop: int, parallel: bool) -> None:
        """The blocks of columns from `start` to `stop`, for threads to share; only the last block
        of all may be narrower, and it comes alone.
        """
        count = min(self.tile.n_block, self.n - start * self.tile.n_block)
        with self.emitter.loop("j", start, stop, 1, parallel) as block:
            self._columns(block, count)

    def _columns(self, block: Index, count: int) -> None:
        self.block, self.columns = block, block * self.tile.n_block
        if not self.from_zero:
            return self._blocks_of_k(count)
        self.every_sum((), (Index(), self.m), (self.columns, count), self.clear)
        with self.loops_before():
            self._blocks_of_k(count)
        self.every_sum((), (Index(), self.m), (self.columns, count), self.complete)
        return None

    def _blocks_of_k(self, count: int) -> None:
        for first, last, size, at in self._k_blocks():
            with at as k0:
                self.k0 = k0
                if not self.tile.stored:
                    self._copy_panels(size, count)
                self._rows_of_block(size, count, first, last)

    def _rows_of_block(self, size: int, count: int, first: bool, last: bool) -> None:
        if len(self.shape) > 2 and not self.tile.pack_left:
            return self._over_panels(self.m, size, count, first, last)
        m_block = self.tile.m_block
        whole = self.m - self.m % m_block
        for start, stop, height in ((0, whole, m_block), (whole, self.m, self.m - whole)):
            if start == stop:
                continue
            with self._over_outer_rows(()), self.emitter.loop("m0", start, stop, height) as row:
                self.row0 = row
                if self.tile.pack_left:
                    self._copy_rows(size, row, height)
                self._over_panels(height, size, count, first, last)
        self.row0 = None
        return None

    def _over_panels(self, height: int, size: int, count: int, first: bool, last: bool) -> None:
        whole = count - count % self.width
        for start, stop, widths in (
            (0, whole, [LANES] * self.tile.vectors),
            (whole, count, self.widths(count - whole, wide=True)),
        ):
            if start == stop:
                continue
            with self.emitter.loop("n0", start, stop, self.width) as panel:
                self.panel = panel
                self._over_outer(height, size, widths, first, last)

    def _over_outer(
        self, height: int, size: int, widths: list[int], first: bool, last: bool
    ) -> None:
        """The dimensions of M before the last, unless they are open, and the tiles of rows."""
        columns, k = self.columns + self.panel, (self.k0, size)
        if self.row0 is not None:
            return self._tiles(self.row0, height, columns, widths, k, first, last)
        with ExitStack() as loops:
            outer: list[Index] = []
            for i, extent in enumerate(self.shape[:-2]):
                width = self.tile.outer if i == len(self.shape) - 3 else 1
                outer.append(loops.enter_context(self.emitter.loop(f"b{i}", 0, extent, width)))
            self.outer = tuple(outer)
            self._tiles(Index(), height, columns, widths, k, first, last)
        return None

    # ---- the copies

    def _step_of(self, k: Position) -> Index:
        """The number of a step of k within the block."""
        inner = flat(self.over[1:], k[1:])
        return (k[0] + self.k0 * -1) * self.rest + inner

    def right(self, k: Position, n: Index, lanes: int, wide: bool = False) -> Expr:
        """From the copy: [block, panel, step, column of the panel]; panels have whole vectors."""
        column = n + (self.columns + self.panel) * -1
        if self.tile.stored:
            return self._stored(k, column, lanes)
        place = self.panel * self.depth + self._step_of(k) * self.width + column
        return self._from(self.emitter.stage.panels, self.tile.n_copied, place, lanes)

    def _stored(self, k: Position, column: Index, lanes: int) -> Expr:
        """From the weight itself: [panel, step, column of the panel]"""
        over, weight = (*self.before, *self.over), below_views(self.product.args[1])
        first = (self.columns + self.panel) * math.prod(over)
        place = first + flat(over, (*self.around, *k)) * self.width + column
        buffer = self.emitter.program.places[weight]
        if column == LANE and self.few:
            self.emitter.prefetch(buffer, place + LANE * -1 + self.width * _AHEAD)
        register = self.emitter.fresh("c", self.product.type.dtype, lanes)
        return self.emitter.assign(register, self.emitter.load(buffer, place, lanes))

    def left(self, row: Position, k: Position, lanes: int = 1) -> Expr:
        if not self.tile.pack_left:
            return super().left(row, k, lanes)
        assert self.row0 is not None
        place = self._place_of_row(row[-1] + self.row0 * -1, k)
        return self._from(self.emitter.stage.rows, self.tile.m_block, place, lanes)

    def _place_of_row(self, row: Index, k: Position) -> Index:
        """In the copy of a block of rows: [tile, step, row of the tile]"""
        within = row.offset % self.tile.rows
        return (row + -within) * self.depth + self._step_of(k) * self.tile.rows + within

    def _from(self, buffer: str, extent: int, place: Index, lanes: int) -> Expr:
        base = self.block * (self.depth * extent)
        register = self.emitter.fresh("c", self.product.type.dtype, lanes)
        return self.emitter.assign(register, self.emitter.load(buffer, base + place, lanes))

    def _copy_panels(self, size: int, count: int) -> None:
        whole = count - count % self.width
        for start, stop, widths in (
            (0, whole, [LANES] * self.tile.vectors),
            (whole, count, self.widths(count - whole, wide=False)),
        ):
            if start == stop:
                continue
            panels = self.emitter.loop("p", start, stop, self.width)
            if self._lies_turned():
                self._copy_turned(panels, size, widths)
                continue
            with self._steps(size, self.every) as k, panels as panel:
                self._copy_step(k, panel, 0, widths)

    def _lies_turned(self) -> bool:
        """Neighbours along K are neighbours in memory, those along N are not."""
        node = self.product.args[1]
        at = [Index()] * (len(node.type.shape) - 1)
        found = memory_index(node, (*at, LANE), self.emitter.in_memory)
        return found is not None and found[1].terms != LANE.terms

    def _copy_turned(self, panels: Loop, size: int, widths: list[int]) -> None:
        """A vector's columns at a time, each a stream along K: more of them would meet in the same
        set of the first-level cache.
        """
        with panels as panel:
            for number, lanes in enumerate(widths):
                with self._steps(size, self.every) as k:
                    self._copy_step(k, panel, sum(widths[:number]), [lanes])

    @contextmanager
    def _steps(self, size: int, spans: list[Span]) -> Iterator[Position]:
        """Loops over the steps of a block of K: over these of its dimensions behind the first."""
        with ExitStack() as loops:
            k = [self.k0 + loops.enter_context(self.emitter.loop("q0", 0, size))]
            for i, (start, extent) in enumerate(spans[1:], 1):
                k.append(start + loops.enter_context(self.emitter.loop(f"q{i}", 0, extent)))
            yield tuple(k)

    def _copy_step(self, k: Position, panel: Index, start: int, widths: list[int]) -> None:
        """Columns of a panel from `start` on, in vectors of these widths."""
        node = self.product.args[1]
        place = self.block * (self.depth * self.tile.n_copied) + panel * self.depth
        place = place + self._step_of(k) * self.width
        for lanes in widths:
            lane = LANE if lanes > 1 else Index()
            at = (*self.around, *k, self.columns + panel + start + lane)
            value = self.emitter.value(node, at, lanes)
            self.emitter.store(self.emitter.stage.panels, place + start + lane, value, lanes)
            start += lanes

    def _copy_rows(self, size: int, row: Index, height: int) -> None:
        rows = self.tile.rows
        whole = height - height % rows
        for start, stop, count in ((0, whole, rows), (whole, height, height - whole)):
            if start == stop:
                continue
            tiles = self.emitter.loop("t", start, stop, count)
            with self._steps(size, self.spans) as k, tiles as tile:
                self._copy_tile(row, tile, count, k)

    def _copy_tile(self, row: Index, tile: Index, count: int, k: Position) -> None:
        base, start = self.block * (self.depth * self.tile.m_block), 0
        for lanes in self.widths(count, wide=False):
            lane = LANE if lanes > 1 else Index()
            at = (*self.outer, row + tile + start + lane, *self.around, *k)
            value = self.emitter.value(self.product.args[0], at, lanes)
            place = base + self._place_of_row(tile + start, k) + lane
            self.emitter.store(self.emitter.stage.rows, place, value, lanes)
            start += lanes
