"""Stages that go through the frames of a CTC lattice: `ctc`.

Positions run in vectors, frames one after the other, each from the row before it; threads share the
batch.
"""

from __future__ import annotations

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.halves import apply_op
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import flat
from batucada.ir.loops import Expr, Index, Literal
from batucada.ir.types import DType


class Ctc:
    """Writes the kernel of a ctc."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.emission, self.skips = self.node.args
        self.dtype: DType = self.node.type.dtype
        self.nothing = Literal(float("-inf"), self.dtype)

    def write(self) -> None:
        batch, frames, _ = self.emission.type.shape
        with self.emitter.loop("n", 0, batch, 1, self.emitter.stage.parallel) as n:
            self._start(n)
            with self.emitter.loop("t", 0, frames) as t:
                for place in range(2):
                    self._store(n, t + 1, Index(place), self.nothing, 1)
                for start, lanes in self._columns():
                    self._step(n, t, start, lanes)
                self._whole(n, t)

    def _start(self, n: Index) -> None:
        with self.emitter.loop("c", 0, self.node.type.shape[2]) as place:
            self._store(n, Index(), place, self.nothing, 1)
        self._store(n, Index(), Index(2), Literal(0.0, self.dtype), 1)

    def _columns(self) -> list[tuple[Index, int]]:
        return [(Index(start), lanes) for start, lanes in segments(self.emission.type.shape[2])]

    def _whole(self, n: Index, t: Index) -> None:
        extent = self.emission.type.shape[2]
        if extent >= LANES:
            with self.emitter.loop("p", 0, extent - extent % LANES, LANES) as start:
                self._step(n, t, start, LANES)

    def _step(self, n: Index, t: Index, start: Index, lanes: int) -> None:
        """The position itself, the one before, and the one before that where it may be skipped."""
        lane = start + (LANE if lanes > 1 else 0)
        skips = self.emitter.value(self.skips, (n, lane), lanes)
        one, two, here = (self._load(n, t, lane + back, lanes) for back in (1, 0, 2))
        two = self._op("where", skips, two, self.nothing)
        high = self._op("maximum", self._op("maximum", here, one), two)
        reached = apply_op("gt", (high, self.nothing), "bool")
        base = self._held(self._op("where", reached, high, Literal(0.0, self.dtype)), lanes)
        parts = [self._op("exp", self._op("sub", part, base)) for part in (here, one, two)]
        total = self._op("add", self._op("add", parts[0], parts[1]), parts[2])
        value = self._op("add", self._op("log", total), base)
        emission = self.emitter.value(self.emission, (n, t, lane), lanes)
        self._store(n, t + 1, lane + 2, self._op("add", value, emission), lanes)

    def _op(self, name: str, *args: Expr) -> Expr:
        return apply_op(name, args, self.dtype)

    def _held(self, value: Expr, lanes: int) -> Expr:
        return self.emitter.assign(self.emitter.fresh("base", self.dtype, lanes), value)

    def _load(self, n: Index, t: Index, place: Index, lanes: int) -> Expr:
        at = flat(self.node.type.shape, (n, t, place))
        return self._held(self.emitter.load(self.root.buffer, at, lanes), lanes)

    def _store(self, n: Index, t: Index, place: Index, value: Expr, lanes: int) -> None:
        self.emitter.store(
            self.root.buffer, flat(self.node.type.shape, (n, t, place)), value, lanes
        )
