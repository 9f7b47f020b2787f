"""Copies of right operands, panel after panel: `panels`."""

from __future__ import annotations

from contextlib import ExitStack

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES
from batucada.ir.access import flat


class Panels:
    """Writes [panel, step, column of the panel] of an operand [K..., N]."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.width = self.node.integer("panel")

    def write(self) -> None:
        """A vector's columns at a time, along all steps: they may lie far apart."""
        *over, n = self.node.type.shape
        size = self.node.type.size // n * self.width
        parallel = self.emitter.stage.parallel
        with self.emitter.loop("p", 0, n // self.width, 1, parallel) as panel:
            for start in range(0, self.width, LANES):
                with ExitStack() as loops:
                    each = enumerate(over)
                    k = [loops.enter_context(self.emitter.loop(f"q{i}", 0, e)) for i, e in each]
                    at = (*k, panel * self.width + start + LANE)
                    place = panel * size + flat(tuple(over), k) * self.width + start + LANE
                    value = self.emitter.value(self.node.args[0], at, LANES)
                    self.emitter.store(self.root.buffer, place, value, LANES)
