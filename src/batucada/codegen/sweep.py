"""The kernel of a sweep: each row of the weight is updated and at once multiplied into the next
product.
"""

from __future__ import annotations

from collections.abc import Mapping

from batucada.codegen.contract import Contract
from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.lower import Lowered
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import Position, memory_index, spread
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Index, Literal, Register
from batucada.ir.verify import VerifyError
from batucada.mapping import Program, Root, Sweep

_ROWS = 4  # rows of the weight in the body of the loop


def lower_sweep(program: Program, sweep: Sweep, codes: Mapping[Node, int]) -> Lowered:
    writer = _Writer(program, sweep, codes)
    writer.write()
    emitter = writer.emitter
    buffers = tuple((name, 0) for name in emitter.params)
    return Lowered(emitter.kernel(f"{sweep.update.name}_sweep"), buffers)


class _Writer:
    def __init__(self, program: Program, sweep: Sweep, codes: Mapping[Node, int]) -> None:
        self.sweep = sweep
        update, forward = sweep.update, sweep.forward
        self.emitter = Emitter(program, update, codes)
        self.update = Contract(self.emitter)
        product = forward.contract
        assert product is not None
        self.product = product
        self.batch, n = product.type.shape
        widths = [LANES] * (n // LANES) + [lanes for _, lanes in segments(n)]
        self.columns = [(sum(widths[:i]), lanes) for i, lanes in enumerate(widths)]
        self.weight = next(r.node for r in update.roots if r.buffer == product.args[1].name)

    def write(self) -> None:
        copies = 2 if self.batch * len(self.columns) <= 4 else 1
        sums = [self._zeros() for _ in range(copies)]
        rows = self.product.args[1].type.shape[0]
        whole = rows - rows % _ROWS
        if whole:
            with self.emitter.loop("m1", 0, whole, _ROWS) as row:
                for step in range(_ROWS):
                    self._row(row + step, sums[step % copies])
        for step in range(whole, rows):
            self._row(Index(step), sums[step % copies])
        self._finish(sums)

    def _zeros(self) -> dict[tuple[int, int], Register]:
        return {
            (b, start): self._zero(lanes)
            for b in range(self.batch)
            for start, lanes in self.columns
        }

    def _zero(self, lanes: int) -> Register:
        dtype = self.product.type.dtype
        value = Apply("splat", (Literal(0.0, dtype),), dtype, lanes)
        register = self.emitter.fresh("next", dtype, lanes)
        return self.emitter.assign(register, value if lanes > 1 else Literal(0.0, dtype))

    def _row(self, row: Index, sums: dict[tuple[int, int], Register]) -> None:
        following = [self._following(Index(b), row) for b in range(self.batch)]
        for start, lanes in self.columns:
            column = Index(start) + (LANE if lanes > 1 else 0)
            at = (*self.update.row(row), column)
            self.update.finish(at[:-1], column, self._gradient(row, column, lanes), lanes)
            updated = self.emitter.value(self.weight, at, lanes)
            for b, x in enumerate(following):
                total = sums[b, start]
                spread = x if lanes == 1 else Apply("splat", (x,), total.dtype, lanes)
                value = Apply("fma", (spread, updated, total), total.dtype, lanes)
                self.emitter.assign(total, value)

    def _gradient(self, row: Index, column: Index, lanes: int) -> Register:
        total: Register | None = None
        for k in range(self.batch):
            a = self.update.left(self.update.row(row), (Index(k),))
            b = self.update.right((Index(k),), column, lanes)
            dtype = self.product.type.dtype
            spread = a if lanes == 1 else Apply("splat", (a,), dtype, lanes)
            # as in the kernel of the update alone: its sums start from zero
            start = total if total is not None else self._zero(lanes)
            value = Apply("fma", (spread, b, start), dtype, lanes)
            total = self.emitter.assign(self.emitter.fresh("sum", dtype, lanes), value)
        assert total is not None
        return total

    def _following(self, b: Index, k: Index) -> Register:
        """The next step's input at row b, column k."""
        found = memory_index(self.product.args[0], (b, k), lambda node: node.op == "input")
        if found is None:
            raise VerifyError(f"{self.sweep.forward.name}: its input is not in memory")
        buffer = self.sweep.following[self.product.args[0].name]
        value = self.emitter.load(buffer, found[1], 1)
        return self.emitter.assign(self.emitter.fresh("x", self.product.type.dtype, 1), value)

    def _finish(self, sums: list[dict[tuple[int, int], Register]]) -> None:
        emitter, forward = self.emitter, self.sweep.forward
        emitter.turn_to(forward)  # what was a value of this step is now computed for the next
        for other in sums[1:]:
            for key, total in sums[0].items():
                value = Apply("add", (total, other[key]), total.dtype, total.lanes)
                emitter.assign(total, value)
        for (b, start), total in sums[0].items():
            at = (Index(b), Index(start) + (LANE if total.lanes > 1 else 0))
            emitter.define(self.product, at, total.lanes, total)
            self._store(at, total.lanes, forward.roots)

    def _store(self, at: Position, lanes: int, roots: tuple[Root, ...]) -> None:
        kept = [i for e, i in zip(self.product.type.shape, at, strict=True) if e != 1]
        following = self.sweep.following
        pairs = [(root.node, following.get(root.buffer, root.buffer)) for root in roots]
        self.emitter.write(pairs, lambda node: spread(node.type.shape, kept), lanes)
