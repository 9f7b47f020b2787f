"""Products that leave out the border around small images.

Taps that meet equally many places share the code of their tiles, with loops over both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product as pairs

from batucada.codegen.cut import Span
from batucada.codegen.emitter import Emitter
from batucada.codegen.packed import Packed
from batucada.ir.access import Position
from batucada.ir.loops import Index
from batucada.ops.border import Run, runs_of


class Places(Packed):
    """Writes the kernel of a convolution: a tile's rows are images, at one place in each of them,
    and a tap goes over the places that it meets.
    """

    unroll = 2  # it has several such bodies

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.m = self.tile.m_block
        self.image = Index()  # the first of a block of them
        self.places: list[Span] = []

    def _columns(self, block: Index, count: int) -> None:
        self.block, self.columns = block, block * self.tile.n_block
        with self.emitter.loop("m0", 0, self.shape[0], self.m) as self.image:
            self._sums_of_images(count, self.clear)
            for runs in pairs(*runs_of(self.product)):
                with _taps(self.emitter, runs) as (self.around, self.places):
                    self._blocks_of_k(count)
            self.around = ()
            self._sums_of_images(count, self.complete)

    def _sums_of_images(self, count: int, act: Callable[[Position, int], None]) -> None:
        with self.emitter.loop("i", 0, self.m) as image:
            rows, columns = (Index(), self.shape[-2]), (self.columns, count)
            self.every_sum((self.image + image,), rows, columns, act)

    def _over_outer(
        self, height: int, size: int, widths: list[int], first: bool, last: bool
    ) -> None:
        with ExitStack() as loops:
            self.outer = tuple(
                start + loops.enter_context(self.emitter.loop(f"b{i}", 0, count))
                for i, (start, count) in enumerate(self.places)
            )
            columns = self.columns + self.panel
            self._tiles(Index(), height, columns, widths, (self.k0, size), first, last)

    def row(self, m: Index, across: int = 0) -> Position:
        return (self.image + m, *self.outer)


class Taps(Packed):
    """Writes the kernel of the gradient of a weight: a tap sums over the places that it meets."""

    unroll = 2

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.from_zero = self.tile.blocks > 1

    def _rows_of_block(self, size: int, count: int, first: bool, last: bool) -> None:
        for runs in pairs(*runs_of(self.product)):
            with _taps(self.emitter, runs) as (self.outer, places):
                self.spans = [self.spans[0], *places]
                super()._rows_of_block(size, count, first, last)
        self.outer = ()

    @contextmanager
    def _over_outer_rows(self, shared: Position) -> Iterator[None]:
        if self.outer:  # a run of taps
            yield
            return
        with super()._over_outer_rows(shared):
            yield
        self.outer = ()

    def _over_outer(
        self, height: int, size: int, widths: list[int], first: bool, last: bool
    ) -> None:
        row, columns = self.row0 or Index(), self.columns + self.panel
        self._tiles(row, height, columns, widths, (self.k0, size), first, last)


@contextmanager
def _taps(emitter: Emitter, runs: Sequence[Run]) -> Iterator[tuple[Position, list[Span]]]:
    """Loops over the taps of a run of each dimension: the taps, and the places that they meet."""
    with ExitStack() as loops:
        turns = [
            loops.enter_context(emitter.loop(f"o{i}", 0, run.taps)) for i, run in enumerate(runs)
        ]
        both = list(zip(turns, runs, strict=True))
        taps = tuple(turn * run.step + run.first for turn, run in both)
        yield taps, [(turn * run.shift + run.start, run.places) for turn, run in both]
