"""Products that are summed over several dimensions, of which the first are loops around the rest.

All sums of a block of rows lie in the stage's scratch while these loops run: so what is read of
both operands between two visits of a sum stays in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from batucada.codegen.contract import Contract
from batucada.codegen.emitter import LANE
from batucada.codegen.nest import LANES
from batucada.ir.access import Position
from batucada.ir.loops import Apply, Index, Literal

Span = tuple[Index, int]  # the first along a dimension, and how many


class Cut(Contract):
    """Writes the kernel of a contract stage whose tile has a `cut`."""

    def write(self, start: int, stop: int, step: int, parallel: bool) -> None:
        """Blocks of rows are outermost, for threads to share; where there is one, the first
        dimension of M is.
        """
        by_rows = stop - start > step or len(self.shape) == 2
        with ExitStack() as loops:
            shared: list[Index] = []
            if not by_rows:
                loop = self.emitter.loop("b0", 0, self.shape[0], 1, parallel)
                shared = [loops.enter_context(loop)]
            loop = self.emitter.loop("m0", start, stop, step, parallel and by_rows)
            row = loops.enter_context(loop)
            count = min(step, stop - start)
            columns = Index(), self.n
            self.every_sum(tuple(shared), (row, count), columns, self.clear)
            with self.loops_before():
                self._blocks(tuple(shared), row, count)
            self.every_sum(tuple(shared), (row, count), columns, self.complete)

    @contextmanager
    def loops_before(self) -> Iterator[None]:
        """Over the dimensions of K before the one that is cut."""
        with ExitStack() as loops:
            self.around = tuple(
                loops.enter_context(self.emitter.loop(f"o{i}", 0, extent))
                for i, extent in enumerate(self.before)
            )
            yield
        self.around = ()

    def _blocks(self, shared: Position, row: Index, count: int) -> None:
        for first, last, size, at in self._k_blocks():
            with at as k0, self._over_outer_rows(shared):
                for column, widths in self._panels():
                    with column as n0:
                        self._tiles(row, count, n0, widths, (k0, size), first, last)

    @contextmanager
    def _over_outer_rows(self, shared: Position) -> Iterator[None]:
        with ExitStack() as loops:
            rest = list(enumerate(self.shape[:-2]))[len(shared) :]
            opened = [loops.enter_context(self.emitter.loop(f"b{i}", 0, e)) for i, e in rest]
            self.outer = (*shared, *opened)
            yield

    def every_sum(
        self, shared: Position, rows: Span, columns: Span, act: Callable[[Position, int], None]
    ) -> None:
        """`act` on every vector of sums of a block of rows and columns: its place and lanes."""
        with self._over_outer_rows(shared), self.emitter.loop("m1", 0, rows[1]) as m:
            outer, m = self.outer, rows[0] + m
            whole = columns[1] - columns[1] % LANES
            if whole:
                with self.emitter.loop("n1", 0, whole, LANES) as n:
                    act((*outer, m, columns[0] + n + LANE), LANES)
            start = whole
            for lanes in self.widths(columns[1] - whole, wide=False):
                lane = LANE if lanes > 1 else Index()
                act((*outer, m, columns[0] + start + lane), lanes)
                start += lanes

    def clear(self, at: Position, lanes: int) -> None:
        dtype = self.product.type.dtype
        zero = Literal(0.0 if self.product.type.is_float else 0, dtype)
        value = Apply("splat", (zero,), dtype, lanes) if lanes > 1 else zero
        self.emitter.store(self.emitter.stage.scratch, self.place_of_sum(at), value, lanes)

    def complete(self, at: Position, lanes: int) -> None:
        value = self.emitter.load(self.emitter.stage.scratch, self.place_of_sum(at), lanes)
        register = self.emitter.fresh("total", self.product.type.dtype, lanes)
        self.finish(at[:-1], at[-1], self.emitter.assign(register, value), lanes)
