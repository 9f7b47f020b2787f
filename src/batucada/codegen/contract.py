"""Products: a register-tiled micro-kernel for the shape at hand, with whatever follows it as
epilogue.

`outer`: a tile of rows x vectors sums stays in registers while k runs; the right operand is read in
vectors along N, the left one is spread.  `dot`: for few rows and a right operand contiguous along
K, vectors run along K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import Position, flat, memory_index, nontrivial, spread
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index, Literal, Register
from batucada.mapping.program import Tile

Loop = AbstractContextManager[Index]

_SHORT_K = 16  # up to here k is unrolled whole
_SUMS = 12  # registers that may hold sums: with more, LLVM spills some
_LINE = 16  # elements of a cache line
_FAR = 256 * 1024  # bytes of an operand that does not wait in the second-level cache
_IN_FLIGHT = 8  # sums that hide the latency of a fused multiply-add: 4 cycles, 2 a cycle


class Contract:
    """Writes the kernel of a contract stage: the rows `start` to `stop`, taken `step` at a time."""

    unroll = 4  # steps of k in the body of its loop

    def __init__(self, emitter: Emitter) -> None:
        assert emitter.stage.contract is not None
        assert emitter.stage.tile is not None
        self.emitter = emitter
        self.product: Node = emitter.stage.contract
        self.tile: Tile = emitter.stage.tile
        self.shape = self.product.type.shape
        self.m, self.n = self.shape[-2:]
        attrs = dict(self.product.attrs)
        right = self.product.args[1].type.shape
        depth = attrs.get("k", 1)
        assert isinstance(depth, int)
        over = right[len(right) - 1 - depth : -1]
        self.before, self.over = over[: self.tile.cut], over[self.tile.cut :]
        self.from_zero = bool(self.tile.cut)  # all sums begin and end in passes of their own
        self.around: Position = ()  # where the loops over `before` are
        self.k = self.over[0]  # what is cut in blocks
        self.spans = [(Index(), extent) for extent in self.over]  # what of each dimension is taken
        self.outer: tuple[Index, ...] = ()

    # ---- the loops around a tile

    def write(self, start: int, stop: int, step: int, parallel: bool) -> None:
        """Batches and outer dimensions of M outside; then blocks of rows, of K, of columns, and
        tiles.
        """
        outermost = parallel
        with ExitStack() as loops:
            outer: list[Index] = []
            for i, extent in enumerate(self.shape[:-2]):
                width = self.tile.outer if i == len(self.shape) - 3 else 1
                shared = outermost and extent > width  # threads share no loop of one turn
                loop = self.emitter.loop(f"b{i}", 0, extent, width, shared)
                outer.append(loops.enter_context(loop))
                outermost = outermost and not shared
            self.outer = tuple(outer)
            row = loops.enter_context(self.emitter.loop("m0", start, stop, step, outermost))
            self._rows(row, min(step, stop - start))

    def _rows(self, row: Index, count: int) -> None:
        if self.tile.form == "dot":
            return self._dots(row, count)
        for first, last, size, at in self._k_blocks():
            with at as k0:
                for column, widths in self._panels():
                    with column as n0:
                        self._tiles(row, count, n0, widths, (k0, size), first, last)
        return None

    def _k_blocks(self) -> Iterator[tuple[bool, bool, int, Loop]]:
        """First, middle and last block of K, and their sizes; the middle ones are one loop."""
        count, size = self.tile.blocks, self.tile.k_block
        behind = (count - 1) * size
        rest = self.k - behind
        blocks = [(True, count == 1, 0, size, rest if count == 1 else size)]
        if count > 1:
            blocks += [(False, False, size, behind, size), (False, True, behind, self.k, rest)]
        if self.from_zero:
            whole = self.k - self.k % size
            blocks = [(False, False, 0, whole, size), (False, False, whole, self.k, rest)]
        for first, last, start, stop, width in blocks:
            if start < stop:
                yield first, last, width, self.emitter.loop("k0", start, stop, width)

    def _panels(self) -> Iterator[tuple[Loop, list[int]]]:
        """Columns in panels of the tile's width, and the rest."""
        width = self.tile.vectors * LANES
        whole = self.n - self.n % width
        if whole:
            yield self.emitter.loop("n0", 0, whole, width), [LANES] * self.tile.vectors
        if whole < self.n:
            columns = self.widths(self.n - whole, self._may_read_on())
            yield self.emitter.loop("n0", whole, self.n, width), columns

    @staticmethod
    def widths(count: int, wide: bool) -> list[int]:
        """Columns of each vector of a row: whole ones, and the rest, where `wide` in one vector of
        which some lanes are left unused."""
        rest = [lanes for _, lanes in segments(count)]
        if wide and len(rest) > 1:
            rest = [sum(rest)]
        return [LANES] * (count // LANES) + rest

    def _may_read_on(self) -> bool:
        """Whether a vector of the right operand may end behind its row: there is memory behind it,
        and what lies there goes into lanes that nobody uses.
        """
        node = self.product.args[1]
        at = [Index()] * (len(node.type.shape) - 1)
        found = memory_index(node, (*at, LANE), self.emitter.in_memory)
        if found is None or found[1].terms != LANE.terms:
            return False
        return self.emitter.has_slack(found[0])

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

    def left(self, row: Position, k: Position, lanes: int = 1) -> Expr:
        node = self.product.args[0]
        k = (*self.around, *k)
        outer = self._outer_of(node, row[:-1], 1 + len(k))
        return self.emitter.value(node, (*outer, row[-1], *k), lanes)

    def right(self, k: Position, n: Index, lanes: int, wide: bool = False) -> Expr:
        """`wide`: the vector may end behind its row."""
        node = self.product.args[1]
        k = (*self.around, *k)
        at = (*self._outer_of(node, self.outer, len(k) + 1), *k, n)
        return self.emitter.wide(node, at, lanes) if wide else self.emitter.value(node, at, lanes)

    def _outer_of(self, node: Node, outer: Position, inner: int) -> Position:
        """The indices of an operand before its last `inner` dimensions.  The right operand of a
        `contract` has the first ones only; those of a `matmul` broadcast."""
        count = len(node.type.shape) - inner
        if self.product.op == "contract":
            return outer[:count]
        tail = zip(node.type.shape[:count], outer[len(outer) - count :], strict=True)
        return tuple(Index() if extent == 1 else index for extent, index in tail)

    def ask_ahead(self, rows: list[Position]) -> None:
        """Of a large image, the lines that the tile below this one is the first to read: by
        themselves they come too late, for its rows of pixels are read in many short pieces.
        """
        node = self.product.args[0]
        if self.product.op != "contract" or len(self.over) < 2 or not self.outer or self.around:
            return
        lines: dict[Index, str] = {}
        for row in rows:
            for start in range(0, self.over[-1], _LINE):
                k = (*(Index(extent - 1) for extent in self.over[:-1]), Index(start))
                at = (*row[:-2], row[-2] + self.tile.outer, row[-1], *k)
                found = memory_index(node, at, self.emitter.in_memory)
                if found is None or found[0].type.bytes < _FAR:
                    return
                lines[found[1]] = self.emitter.program.places[found[0]]
        for index, buffer in lines.items():
            self.emitter.prefetch(buffer, index)

    def row(self, m: Index, across: int = 0) -> Position:
        """The row `m` of the outer dimensions that are open, the last of them `across` further."""
        if not across:
            return (*self.outer, m)
        return (*self.outer[:-1], self.outer[-1] + across, m)

    def place_of_sum(self, at: Position) -> Index:
        """Of a partial sum in the scratch."""
        return flat(self.shape, at)

    def finish(self, row: Position, n: Index, value: Expr, lanes: int) -> None:
        """The epilogue of `lanes` neighbouring elements of a row."""
        at = (*row, n)
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
        emitter, dtype, row = self.emitter, self.product.type.dtype, self.row(m)
        totals: list[Expr] = []
        whole = self.k - self.k % LANES
        sums = [_zero(emitter, self.product, LANES) for _ in range(columns)] if whole else []
        if whole:
            with emitter.loop("k", 0, whole, LANES) as k:
                a = self.left(row, (k + LANE,), LANES)
                for c, total in enumerate(sums):
                    b = self.right((k + LANE,), n0 + c, LANES)
                    emitter.assign(total, Apply("fma", (a, b, total), dtype, LANES))
            totals = [Apply("reduce_add", (total,), dtype) for total in sums]
        for start, lanes in segments(self.k):
            k = (Index(start) + (LANE if lanes > 1 else 0),)
            a = self.left(row, k, lanes)
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
            self.finish(row, n0 + LANE, packed, LANES)
            return
        for c, total in enumerate(totals):
            self.finish(row, n0 + c, emitter.assign(emitter.fresh("dot", dtype, 1), total), 1)


class _Tile:
    """rows x widths registers of sums."""

    def __init__(
        self, contract: Contract, m: Index, rows: int, n0: Index, widths: list[int]
    ) -> None:
        self.contract = contract
        self.emitter = contract.emitter
        across = range(contract.tile.outer)
        self.rows = [contract.row(m + r, a) for a in across for r in range(rows)]
        self.n0, self.widths = n0, widths
        self.lanes = [LANES if len(segments(w)) > 1 else w for w in widths]
        self.starts = [sum(widths[:i]) for i in range(len(widths))]
        self.sets: list[dict[tuple[int, int], Register]] = []

    def _column(self, v: int) -> Index:
        return self._at(v, 0, self.lanes[v])

    def _at(self, v: int, start: int, lanes: int) -> Index:
        return self.n0 + self.starts[v] + start + (LANE if lanes > 1 else 0)

    def _pieces(self, v: int) -> list[tuple[int, int]]:
        """(start, lanes) of what is used of a vector."""
        return segments(self.widths[v]) if self._wide(v) else [(0, self.lanes[v])]

    def _wide(self, v: int) -> bool:
        return self.widths[v] < self.lanes[v]

    def _piece(self, v: int, total: Register, start: int, lanes: int) -> Expr:
        if lanes == self.lanes[v]:
            return total
        return Apply("part", (total,), total.dtype, lanes, start)

    def write(self, k0: Index, size: int, first: bool, last: bool) -> None:
        sums = len(self.rows) * len(self.widths)
        independent = max(1, min(-(-_IN_FLIGHT // sums), _SUMS // sums))
        steps = size * math.prod(extent for _, extent in self.contract.spans[1:])
        copies = min(independent, max(1, steps))
        self.sets = [self._start(first, c) for c in range(copies)]
        if first:
            self.contract.ask_ahead(self.rows)
        self._sum_over(k0, size)
        for (r, v), total in self._added().items():
            for start, lanes in self._pieces(v):
                value, column = self._piece(v, total, start, lanes), self._at(v, start, lanes)
                if last:
                    self.contract.finish(self.rows[r], column, value, lanes)
                else:
                    place = self.contract.place_of_sum((*self.rows[r], column))
                    self.emitter.store(self.emitter.stage.scratch, place, value, lanes)

    def _start(self, first: bool, copy: int) -> dict[tuple[int, int], Register]:
        """Zeros, or the partial sums of the blocks of K before."""
        found: dict[tuple[int, int], Register] = {}
        for r in range(len(self.rows)):
            for v, lanes in enumerate(self.lanes):
                if first or copy > 0:
                    found[r, v] = _zero(self.emitter, self.contract.product, lanes)
                    continue
                place = self.contract.place_of_sum((*self.rows[r], self._column(v)))
                scratch = self.emitter.stage.scratch
                value = self.emitter.load(scratch, place, lanes, self._wide(v))
                register = self.emitter.fresh("sum", self.contract.product.type.dtype, lanes)
                found[r, v] = self.emitter.assign(register, value)
        return found

    def _sum_over(self, k0: Index, size: int) -> None:
        """The last dimension of K innermost and unrolled; those before it are loops."""
        spans = self.contract.spans
        if len(spans) == 1:
            return self._along_last((), k0, size)
        with ExitStack() as loops:
            at = [k0 + loops.enter_context(self.emitter.loop("k1", 0, size))]
            for number, (start, extent) in enumerate(spans[1:-1], 2):
                at.append(start + loops.enter_context(self.emitter.loop(f"k{number}", 0, extent)))
            self._along_last(tuple(at), *spans[-1])
        return None

    def _along_last(self, at: Position, k0: Index, size: int) -> None:
        if size <= _SHORT_K:
            for step in range(size):
                self._step((*at, k0 + step), self.sets[step % len(self.sets)])
            return
        together = max(self.contract.unroll, len(self.sets))
        together -= together % len(self.sets)
        whole = size - size % together
        with self.emitter.loop(f"k{len(at) + 1}", 0, whole, together) as k:
            for step in range(together):
                self._step((*at, k0 + k + step), self.sets[step % len(self.sets)])
        for step in range(whole, size):
            self._step((*at, k0 + step), self.sets[step % len(self.sets)])

    def _step(self, k: Position, sums: dict[tuple[int, int], Register]) -> None:
        """One column of the left operand times one row of the right one."""
        contract = self.contract
        if len(self.rows) <= len(self.widths):
            left = [contract.left(row, k) for row in self.rows]
            for v, lanes in enumerate(self.lanes):
                b = contract.right(k, self._column(v), lanes, self._wide(v))
                for r in range(len(self.rows)):
                    self._accumulate(sums[r, v], left[r], b)
            return
        right = [
            contract.right(k, self._column(v), lanes, self._wide(v))
            for v, lanes in enumerate(self.lanes)
        ]
        for r, row in enumerate(self.rows):
            a = contract.left(row, k)
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
