"""Products of a few rows with a large right operand, such as inference of one sample.

Their time is that of reading the right operand, so it is read once and as it lies: some of its rows
at a time from end to end, while the sums stay in the first-level cache.  Threads take parts of K,
each with sums of its own; there are as many parts for one thread as for many, so that the result
is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from batucada.codegen.cut import Cut
from batucada.codegen.emitter import Emitter
from batucada.ir.access import Position, flat
from batucada.ir.loops import Apply, Index


class Streamed(Cut):
    """Writes the kernels of a contract stage whose tile is `streamed`."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.part = Index()

    def write_parts(self, parallel: bool) -> None:
        """The sums of each part, into the scratch."""
        size = self.tile.k_block
        with self.emitter.loop("p", 0, self.tile.blocks, 1, parallel) as self.part:
            self.every_sum((), (Index(), self.m), (Index(), self.n), self.clear)
            self.outer = tuple(Index() for _ in self.shape[:-2])
            with self._of_part() as (first, depth):
                whole = depth - depth % size
                for start, stop, steps in ((0, whole, size), (whole, depth, depth - whole)):
                    if start < stop:
                        with self.emitter.loop("k0", start, stop, steps) as k:
                            self._along_columns((first + k, steps))

    @contextmanager
    def _of_part(self) -> Iterator[tuple[Index, int]]:
        """The first step of K's last dimension that a part takes, and how many: a share of them or,
        where K has several dimensions, all of them for one place in the first.
        """
        if not self.before:
            depth = self.k // self.tile.blocks
            yield self.part * depth, depth
            return
        with ExitStack() as loops:
            rest = enumerate(self.before[1:], 1)
            inner = [loops.enter_context(self.emitter.loop(f"o{i}", 0, e)) for i, e in rest]
            self.around = (self.part, *inner)
            yield Index(), self.k
        self.around = ()

    def _along_columns(self, k: tuple[Index, int]) -> None:
        for column, widths in self._panels():
            with column as n0:
                self._tiles(Index(), self.m, n0, widths, k, first=False, last=False)

    def place_of_sum(self, at: Position) -> Index:
        return self.part * self.product.type.size + flat(self.shape, at)

    def write_totals(self) -> None:
        """All parts added up in their order, and what follows the product."""
        self.every_sum((), (Index(), self.m), (Index(), self.n), self.complete)

    def complete(self, at: Position, lanes: int) -> None:
        dtype, total = self.product.type.dtype, None
        for part in range(self.tile.blocks):
            self.part = Index(part)
            value = self.emitter.load(self.emitter.stage.scratch, self.place_of_sum(at), lanes)
            if total is None:
                total = self.emitter.assign(self.emitter.fresh("total", dtype, lanes), value)
            else:
                self.emitter.assign(total, Apply("add", (total, value), dtype, lanes))
        assert total is not None
        self.finish(at[:-1], at[-1], total, lanes)
