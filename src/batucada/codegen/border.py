"""Products that leave out the border around small images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product as pairs

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
        self.places: list[tuple[Index, int]] = []  # of each dimension: the first, and how many

    def _columns(self, block: Index, count: int) -> None:
        self.block, self.columns = block, block * self.tile.n_block
        with self.emitter.loop("m0", 0, self.shape[0], self.m) as self.image:
            self._sums_of_images(count, self.clear)
            for runs in pairs(*runs_of(self.product)):
                with self._taps(runs):
                    self._blocks_of_k(count)
            self._sums_of_images(count, self.complete)

    def _sums_of_images(self, count: int, act: Callable[[Position, int], None]) -> None:
        with self.emitter.loop("i", 0, self.m) as image:
            rows, columns = (Index(), self.shape[-2]), (self.columns, count)
            self.every_sum((self.image + image,), rows, columns, act)

    @contextmanager
    def _taps(self, runs: Sequence[Run]) -> Iterator[None]:
        with ExitStack() as loops:
            turns = [
                loops.enter_context(self.emitter.loop(f"o{i}", 0, run.taps))
                for i, run in enumerate(runs)
            ]
            both = list(zip(turns, runs, strict=True))
            self.around = tuple(turn * run.step + run.first for turn, run in both)
            self.places = [(turn * run.shift + run.start, run.places) for turn, run in both]
            yield
        self.around = ()

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
