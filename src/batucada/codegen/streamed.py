"""Products of a few rows with a large right operand, such as inference of one sample.

Their time is that of reading the right operand, so it is read once and as it lies: some of its rows
at a time from end to end, while the sums stay in the first-level cache.  Threads take parts of K,
each with sums of its own; there are as many parts for one thread as for many, so that the result
is the same.
"""

from __future__ import annotations

from batucada.codegen.cut import Cut
from batucada.codegen.emitter import Emitter
from batucada.ir.access import Position, flat
from batucada.ir.loops import Apply, Index


class Streamed(Cut):
    """Writes the kernels of a contract stage whose tile is `streamed`."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.outer = tuple(Index() for _ in self.shape[:-2])
        self.part = Index()

    def write_parts(self, parallel: bool) -> None:
        """The sums of each part, into the scratch."""
        size, depth = self.tile.k_block, self.k // self.tile.blocks
        whole = depth - depth % size
        with self.emitter.loop("p", 0, self.tile.blocks, 1, parallel) as self.part:
            for start, stop, steps in (
                (0, size, size),
                (size, whole, size),
                (whole, depth, depth - whole),
            ):
                if start < stop:
                    with self.emitter.loop("k0", start, stop, steps) as k:
                        self._along_columns((self.part * depth + k, steps), start == 0)

    def _along_columns(self, k: tuple[Index, int], first: bool) -> None:
        for column, widths in self._panels():
            with column as n0:
                self._tiles(Index(), self.m, n0, widths, k, first, last=False)

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
