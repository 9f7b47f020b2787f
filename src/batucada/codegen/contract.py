"""Products: a register-tiled micro-kernel for the shape at hand, with whatever follows it as
epilogue.

`outer`: a tile of rows x vectors sums stays in registers while k runs; the right operand is read in
vectors along N, the left one is spread.  `dot`: for few rows and a right operand contiguous along
K, vectors run along K.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import Position, flat, nontrivial, spread
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index, Literal, Register
from batucada.mapping.program import Tile

_Loop = AbstractContextManager[Index]

_UNROLL = 4  # steps of k in the body of its loop
_SHORT_K = 16  # up to here k is unrolled whole
_IN_FLIGHT = 8  # sums that hide the latency of a fused multiply-add: 4 cycles, 2 a cycle


class Contract:
    """Writes the kernel of a contract stage: the rows `start` to `stop`, taken `step` at a time."""

    def __init__(self, emitter: Emitter) -> None:
        assert emitter.stage.contract is not None
        assert emitter.stage.tile is not None
        self.emitter = emitter
        self.product: Node = emitter.stage.contract
        self.tile: Tile = emitter.stage.tile
        self.shape = self.product.type.shape
        self.m, self.n = self.shape[-2:]
        self.k = self.product.args[0].type.shape[-1]
        self.batch: tuple[Index, ...] = ()

    # ---- the loops around a tile

    def write(self, start: int, stop: int, step: int, parallel: bool) -> None:
        """Batches outside; then blocks of rows, of K, of columns, and tiles."""
        with ExitStack() as loops:
            batch: list[Index] = []
            for i, extent in enumerate(self.shape[:-2]):
                outermost = parallel and i == 0
                batch.append(
                    loops.enter_context(self.emitter.loop(f"b{i}", 0, extent, 1, outermost))
                )
            self.batch = tuple(batch)
            rows_parallel = parallel and not batch
            row = loops.enter_context(self.emitter.loop("m0", start, stop, step, rows_parallel))
            self._rows(row, min(step, stop - start))

    def _rows(self, row: Index, count: int) -> None:
        if self.tile.form == "dot":
            return self._dots(row, count)
        for first, last, at in self._k_blocks():
            with at as k0:
                size = (
                    self.k - (self._block_count() - 1) * self.tile.k_block
                    if last
                    else self.tile.k_block
                )
                for column, widths in self._panels():
                    with column as n0:
                        self._tiles(row, count, n0, widths, (k0, size), first, last)
        return None

    def _block_count(self) -> int:
        return max(1, -(-self.k // self.tile.k_block))

    def _k_blocks(self) -> Iterator[tuple[bool, bool, _Loop]]:
        """First, middle and last block of K; the middle ones are one loop."""
        count, size = self._block_count(), self.tile.k_block
        for first, last, start, stop in (
            (True, count == 1, 0, size),
            (False, False, size, (count - 1) * size),
            (False, True, (count - 1) * size, count * size),
        ):
            if start < stop and (count > 1 or first):
                yield first, last, self.emitter.loop("k0", start, stop, size)

    def _panels(self) -> Iterator[tuple[_Loop, list[int]]]:
        """Columns in panels of the tile's width, and the rest."""
        width = self.tile.vectors * LANES
        whole = self.n - self.n % width
        if whole:
            yield self.emitter.loop("n0", 0, whole, width), [LANES] * self.tile.vectors
        if whole < self.n:
            rest = self.n - whole
            widths = [LANES] * (rest // LANES) + [lanes for _, lanes in segments(rest)]
            yield self.emitter.loop("n0", whole, self.n, width), widths

    def _tiles(
        self,
        row: Index,
        count: int,
        n0: Index,
        widths: list[int],
        k: tuple[Index, int],
        first: bool,
        last: bool,
    ) -> None:
        rows = min(self.tile.rows, count)
        whole = count - count % rows
        with self.emitter.loop("m1", 0, whole, rows) as inner:
            _Tile(self, row + inner, rows, n0, widths).write(*k, first, last)
        if whole < count:
            _Tile(self, row + whole, count - whole, n0, widths).write(*k, first, last)

    # ---- values at a point

    def left(self, m: Index, k: Index, lanes: int = 1) -> Expr:
        node = self.product.args[0]
        return self.emitter.value(node, self._operand(node, m, k), lanes)

    def right(self, k: Index, n: Index, lanes: int) -> Expr:
        node = self.product.args[1]
        return self.emitter.value(node, self._operand(node, k, n), lanes)

    def _operand(self, node: Node, row: Index, column: Index) -> Position:
        shape = node.type.shape
        batch = self.batch[len(self.batch) - (len(shape) - 2) :] if len(shape) > 2 else ()
        outer = [Index() if e == 1 else b for e, b in zip(shape[:-2], batch, strict=True)]
        return (*outer, row, column)

    def at(self, m: Index, n: Index) -> Position:
        return (*self.batch, m, n)

    def finish(self, m: Index, n: Index, value: Expr, lanes: int) -> None:
        """The epilogue of `lanes` neighbouring elements of a row."""
        at = self.at(m, n)
        kept = [index for extent, index in zip(self.shape, at, strict=True) if extent != 1]
        assert len(kept) == len(nontrivial(self.shape))
        self.emitter.define(self.product, spread(self.shape, kept), lanes, value)
        roots = [(root.node, root.buffer) for root in self.emitter.stage.roots]
        self.emitter.write(roots, lambda node: spread(node.type.shape, kept), lanes)

    # ---- the dot form

    def _dots(self, row: Index, count: int) -> None:
        columns = self.tile.rows
        whole = self.n - self.n % columns
        with self.emitter.loop("m1", 0, count) as inner:
            if whole:
                with self.emitter.loop("n0", 0, whole, columns) as n0:
                    self._dot(row + inner, n0, columns)
            if whole < self.n:
                self._dot(row + inner, Index(whole), self.n - whole)

    def _dot(self, m: Index, n0: Index, columns: int) -> None:
        """`columns` sums over K, each in vectors, added up across lanes at the end."""
        emitter, dtype = self.emitter, self.product.type.dtype
        totals: list[Expr] = []
        whole = self.k - self.k % LANES
        sums = [_zero(emitter, self.product, LANES) for _ in range(columns)] if whole else []
        if whole:
            with emitter.loop("k", 0, whole, LANES) as k:
                a = self.left(m, k + LANE, LANES)
                for c, total in enumerate(sums):
                    b = self.right(k + LANE, n0 + c, LANES)
                    emitter.assign(total, Apply("fma", (a, b, total), dtype, LANES))
            totals = [Apply("reduce_add", (total,), dtype) for total in sums]
        for start, lanes in segments(self.k):
            k = Index(start) + (LANE if lanes > 1 else 0)
            a = self.left(m, k, lanes)
            products = [
                Apply("mul", (a, self.right(k, n0 + c, lanes)), dtype, lanes)
                for c in range(columns)
            ]
            parts = [Apply("reduce_add", (p,), dtype) if lanes > 1 else p for p in products]
            totals = (
                [Apply("add", (t, p), dtype) for t, p in zip(totals, parts, strict=True)]
                if totals
                else list(parts)
            )
        if columns == LANES:
            packed = emitter.assign(
                emitter.fresh("row", dtype, LANES), Apply("pack", tuple(totals), dtype, LANES)
            )
            self.finish(m, n0 + LANE, packed, LANES)
            return
        for c, total in enumerate(totals):
            self.finish(m, n0 + c, emitter.assign(emitter.fresh("dot", dtype, 1), total), 1)


class _Tile:
    """rows x widths registers of sums."""

    def __init__(
        self, contract: Contract, m: Index, rows: int, n0: Index, widths: list[int]
    ) -> None:
        self.contract = contract
        self.emitter = contract.emitter
        self.m, self.rows, self.n0, self.widths = m, rows, n0, widths
        self.starts = [sum(widths[:i]) for i in range(len(widths))]
        self.sets: list[dict[tuple[int, int], Register]] = []

    def _column(self, v: int) -> Index:
        return self.n0 + self.starts[v] + (LANE if self.widths[v] > 1 else 0)

    def write(self, k0: Index, size: int, first: bool, last: bool) -> None:
        independent = max(1, _IN_FLIGHT // (self.rows * len(self.widths)))
        copies = min(independent, max(1, size))
        self.sets = [self._start(first and True, c) for c in range(copies)]
        self._sum_over(k0, size)
        sums = self._added()
        for (r, v), total in sums.items():
            m, n = self.m + r, self._column(v)
            if last:
                self.contract.finish(m, n, total, self.widths[v])
            else:
                scratch = self.emitter.stage.scratch
                index = flat(self.contract.shape, self.contract.at(m, n))
                self.emitter.store(scratch, index, total, self.widths[v])

    def _start(self, first: bool, copy: int) -> dict[tuple[int, int], Register]:
        """Zeros, or the partial sums of the blocks of K before."""
        found: dict[tuple[int, int], Register] = {}
        for r in range(self.rows):
            for v, lanes in enumerate(self.widths):
                if first or copy > 0:
                    found[r, v] = _zero(self.emitter, self.contract.product, lanes)
                    continue
                index = flat(self.contract.shape, self.contract.at(self.m + r, self._column(v)))
                value = self.emitter.load(self.emitter.stage.scratch, index, lanes)
                register = self.emitter.fresh("sum", self.contract.product.type.dtype, lanes)
                found[r, v] = self.emitter.assign(register, value)
        return found

    def _sum_over(self, k0: Index, size: int) -> None:
        if size <= _SHORT_K:
            for step in range(size):
                self._step(k0 + step, self.sets[step % len(self.sets)])
            return
        together = max(_UNROLL, len(self.sets))
        together -= together % len(self.sets)
        whole = size - size % together
        with self.emitter.loop("k1", 0, whole, together) as k1:
            for step in range(together):
                self._step(k0 + k1 + step, self.sets[step % len(self.sets)])
        for step in range(whole, size):
            self._step(k0 + step, self.sets[step % len(self.sets)])

    def _step(self, k: Index, sums: dict[tuple[int, int], Register]) -> None:
        """One column of the left operand times one row of the right one."""
        contract = self.contract
        if self.rows <= len(self.widths):
            left = [contract.left(self.m + r, k) for r in range(self.rows)]
            for v, lanes in enumerate(self.widths):
                b = contract.right(k, self._column(v), lanes)
                for r in range(self.rows):
                    self._accumulate(sums[r, v], left[r], b)
            return
        right = [contract.right(k, self._column(v), lanes) for v, lanes in enumerate(self.widths)]
        for r in range(self.rows):
            a = contract.left(self.m + r, k)
            for v in range(len(self.widths)):
                self._accumulate(sums[r, v], a, right[v])

    def _accumulate(self, total: Register, a: Expr, b: Expr) -> None:
        spread_a = a if total.lanes == 1 else Apply("splat", (a,), total.dtype, total.lanes)
        if total.dtype in ("f32", "f64"):
            value = Apply("fma", (spread_a, b, total), total.dtype, total.lanes)
        else:
            product = Apply("mul", (spread_a, b), total.dtype, total.lanes)
            value = Apply("add", (total, product), total.dtype, total.lanes)
        self.emitter.assign(total, value)

    def _added(self) -> dict[tuple[int, int], Register]:
        totals = dict(self.sets[0])
        for other in self.sets[1:]:
            for key, register in totals.items():
                value = Apply("add", (register, other[key]), register.dtype, register.lanes)
                self.emitter.assign(register, value)
        return totals


def _zero(emitter: Emitter, product: Node, lanes: int) -> Register:
    dtype = product.type.dtype
    zero = Literal(0.0 if product.type.is_float else 0, dtype)
    value: Expr = zero if lanes == 1 else Apply("splat", (zero,), dtype, lanes)
    return emitter.assign(emitter.fresh("sum", dtype, lanes), value)
