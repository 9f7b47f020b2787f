"""Attention without a score matrix: what its two passes share, and the forward pass.

A worker takes one pair of batch and head after the other.  In it, blocks of keys are copied to
scratch as the tiles read them, and each block of queries passes over them: scores, maximum,
exponentials and sums of a row, the product with the values.  What earlier blocks of keys gave a row
is scaled to its new maximum (Dao et al., see `ops/attention.py`).  Queries and keys beyond the last
are computed in scratch, but never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES, segments
from batucada.codegen.tiles import PANEL, Panels, Product, Rows, Scratch
from batucada.ir.access import Position, broadcast_index, flat
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index, IndexValue, Literal, Register, dtype_of, lanes_of
from batucada.ir.types import DType
from batucada.ops.attention import LSE, OUT

_INFINITE = float("inf")
Place = Callable[[Index, int], Index]  # of the vector at a row and a column


def whole(size: int, step: int = LANES) -> int:
    """`size`, rounded up to whole steps."""
    return -(-size // step) * step


def vectors(width: int) -> list[tuple[int, int]]:
    """(start, lanes) of a row's vectors."""
    return [(start, LANES) for start in range(0, width - width % LANES, LANES)] + segments(width)


class Attention:
    """What forward and backward share: the blocks, the copies, the masks."""

    def __init__(self, emitter: Emitter) -> None:
        stage, node = emitter.stage, emitter.stage.nodes[0]
        assert stage.blocking is not None
        self.emitter, self.blocking, self.node = emitter, stage.blocking, node
        self.args = node.args[1:] if node.op == "attention_backward" else node.args
        self.q, self.k, self.v = self.args[:3]
        self.batch, self.heads, self.queries, self.depth = self.q.type.shape
        self.groups, self.keys, self.width = self.v.type.shape[1:]
        self.causal = node.attr("causal") is True
        scale = node.attr("scale")
        assert isinstance(scale, float)
        self.scale = scale
        self.mask: Node | None = None
        buffer = emitter.program.buffers[stage.scratch]
        self.scratch = Scratch(emitter, stage.scratch, buffer.type.dtype)
        self.dtype: DType = self.scratch.dtype
        self.roots = {root.node.integer("result"): root for root in stage.roots}
        self.worker = Index()
        self.rows_end = whole(self.queries, self.blocking.rows)
        self.keys_end = whole(self.keys, self.blocking.keys)

    def area(self, name: str) -> Index:
        start = self.worker * self.blocking.worker_size
        for known, size in self.blocking.areas:
            if known == name:
                return start
            start = start + size
        raise KeyError(name)

    # ---- loops

    def pairs(self, heads: int) -> Iterator[tuple[Index, Index]]:
        """Every (batch, head), shared among the workers."""
        workers = self.blocking.workers
        count = self.batch * heads // workers
        parallel = self.emitter.stage.parallel and workers > 1
        with self.emitter.loop("w", 0, workers, 1, parallel) as worker:
            self.worker = worker
            with self.emitter.loop("i", 0, count) as i:
                yield self._divided(worker * count + i, heads)

    def _divided(self, number: Index, by: int) -> tuple[Index, Index]:
        """Quotient and remainder."""
        if by == 1 or not number.terms:
            return (number, Index()) if by == 1 else (Index(), number)
        if self.batch == 1 and by == self.heads:
            return Index(), number
        quotient = self.emitter.index(
            "b", Apply("div", (IndexValue(number), Literal(by, "i64")), "i64")
        )
        return quotient, self.emitter.index("h", IndexValue(number + quotient * -by))

    def key_blocks(self) -> Iterator[Index]:
        with self.emitter.loop("k0", 0, self.keys_end, self.blocking.keys) as first:
            yield first

    def query_blocks(self, k0: Index) -> Iterator[tuple[Index, Index | None]]:
        """The first query of each block that sees one of the keys from `k0` on, and the number of
        keys that it sees at most.
        """
        rows = self.blocking.rows
        if not self.causal:
            with self.emitter.loop("q0", 0, self.rows_end, rows) as first:
                yield first, None
            return
        limit = Index(self.rows_end) + k0 * -1
        with self.emitter.loop("q0", 0, self.rows_end, rows, limit=limit) as last:
            first = last * -1 + (self.rows_end - rows)
            yield first, first + rows + k0 * -1

    @contextmanager
    def only_at(self, last: int, position: Index) -> Iterator[None]:
        """What is written inside runs in the last block."""
        if not position.terms:
            yield
            return
        with self.emitter.loop("last", last, last + 1, limit=position + 1):
            yield

    # ---- values

    def read(self, node: Node, at: Position, lanes: int) -> Expr:
        value = self.emitter.value(node, at, lanes)
        return value if dtype_of(value) == self.dtype else self.op("cast", value)

    def op(self, name: str, *args: Expr) -> Apply:
        return Apply(name, args, self.dtype, max(map(lanes_of, args)))

    def literal(self, value: float) -> Literal:
        return Literal(value, self.dtype)

    def kept(self, value: Expr) -> Register:
        """In a register of its own, computed here."""
        register = self.emitter.fresh("y", self.dtype, lanes_of(value))
        return self.emitter.assign(register, value)

    def write_root(self, result: int, at: Position, value: Expr, lanes: int) -> None:
        root = self.roots[result]
        kind = root.node.type
        if kind.dtype != self.dtype:
            value = Apply("cast", (value,), kind.dtype, lanes_of(value))
        self.emitter.store(root.buffer, flat(kind.shape, at), value, lanes)

    # ---- copies

    def copy_rows(
        self, node: Node, outer: Position, block: tuple[Index, int, int], place: Place,
        scale: float = 1.0,
    ) -> None:  # fmt: skip
        """The rows of a block, `(first, rows, of all)`; beyond the last one, and beyond the last
        column up to whole vectors, are zeros.
        """
        first, rows, every = block
        width = node.type.shape[-1]
        partial = every % rows != 0
        limit = Index(every) + first * -1 if partial else None
        with self.emitter.loop("r", 0, rows, limit=limit) as row:
            for start, lanes in vectors(width):
                column = Index(start) + (LANE if lanes > 1 else 0)
                value = self.read(node, (*outer, first + row, column), lanes)
                value = value if scale == 1 else self.op("mul", value, self.literal(scale))
                self.scratch.put(place(row, start), value, lanes)
            for column in range(width, whole(width)):
                self.scratch.put(place(row, column), self.literal(0.0))
        if not partial:
            return
        last = every - every % rows
        with self.only_at(last, first), self.emitter.loop("r", every - last, rows) as row:
            for column in range(0, whole(width), LANES):
                self.scratch.put(place(row, column), self.literal(0.0), LANES)

    def copy_panels(self, area: str, node: Node, outer: Position, k0: Index) -> None:
        """A block of keys or values as the right operand of a product over the keys."""
        keys = self.blocking.keys
        panels = Panels(self.area(area), keys, whole(node.type.shape[-1]))
        self.copy_rows(node, outer, (k0, keys, self.keys), panels.place)

    def copy_across(self, area: str, node: Node, outer: Position, k0: Index) -> None:
        """A block of keys or values, turned: the right operand of a product over the features."""
        keys, depth = self.blocking.keys, node.type.shape[-1]
        panels = Panels(self.area(area), depth, keys)
        end = self.keys - self.keys % LANES
        partial = self.keys != self.keys_end
        for start, stop in ((0, keys - keys % PANEL), (keys - keys % PANEL, keys)):
            if start == stop:
                continue
            width = min(PANEL, stop - start)
            limit = Index(end) + k0 * -1 if partial else None
            with self.emitter.loop("n", start, stop, width, limit=limit) as n:
                limit = Index(end) + k0 * -1 + n * -1 if partial else None
                base, stride = panels.panel(n, width)
                with (
                    self.emitter.loop("c", 0, width, LANES, limit=limit) as column,
                    self.emitter.loop("d", 0, depth) as d,
                ):
                    at = (*outer, k0 + n + column + LANE, d)
                    self.scratch.put(base + d * stride + column, self.read(node, at, LANES), LANES)
        if partial:
            self._copy_last_across(node, outer, panels, k0)

    def _copy_last_across(self, node: Node, outer: Position, panels: Panels, k0: Index) -> None:
        first, end = self.keys_end - self.blocking.keys, self.keys - self.keys % LANES
        with (
            self.only_at(first, k0),
            self.emitter.loop("d", 0, panels.depth) as d,
        ):
            for column in range(end - first, self.blocking.keys, LANES):
                self.scratch.put(panels.place(d, column), self.literal(0.0), LANES)
            for key in range(end, self.keys):
                value = self.read(node, (*outer, Index(key), d), 1)
                self.scratch.put(panels.place(d, key - first), value)

    # ---- scores

    def scores_of(self, head: Position, q0: Index, k0: Index, limit: Index | None) -> None:
        """The scaled and masked products of a block of queries, in `q`, with a block of keys."""
        if self.mask is not None:
            self._copy_mask(self.mask, head, q0, k0)
        self.across("scores", "q", "keys_across", self.depth, limit, self.mask is not None)

    def across(
        self, out: str, left: str, right: str, depth: int, limit: Index | None, add: bool = False
    ) -> None:
        rows, keys = self.blocking.rows, self.blocking.keys
        Product(
            self.scratch,
            Rows(self.area(left), whole(depth)),
            Panels(self.area(right), depth, keys),
            Rows(self.area(out), keys),
            rows, keys, depth, add, column_limit=limit,
        ).write()  # fmt: skip

    def _copy_mask(self, mask: Node, head: Position, q0: Index, k0: Index) -> None:
        """What is added to the scores; the rows beyond the last query are zeros."""
        rows, keys = self.blocking.rows, self.blocking.keys
        end, partial = self.keys - self.keys % LANES, self.keys != self.keys_end
        limit = Index(self.queries) + q0 * -1 if self.queries != self.rows_end else None
        base = self.area("scores")

        def value(row: Index, key: Index, lanes: int) -> Expr:
            at = broadcast_index(mask.type.shape, (*head, q0 + row, key))
            found = self.emitter.value(mask, at, lanes)
            if dtype_of(found) != "bool":
                return found if dtype_of(found) == self.dtype else self.op("cast", found)
            return self.op("where", found, self.literal(0.0), self.literal(-_INFINITE))

        with self.emitter.loop("r", 0, rows, limit=limit) as row:
            line = base + row * keys
            until = Index(end) + k0 * -1 if partial else None
            with self.emitter.loop("c", 0, keys, LANES, limit=until) as column:
                self.scratch.put(line + column, value(row, k0 + column + LANE, LANES), LANES)
            if self.keys % LANES:
                first = self.keys_end - keys
                with self.only_at(first, k0):
                    for key in range(end, self.keys):
                        self.scratch.put(line + (key - first), value(row, Index(key), 1))
        if limit is not None:
            last = self.rows_end - rows
            with self.only_at(last, q0):
                start = (self.queries - last) * keys
                self.scratch.fill(base + start, (self.rows_end - self.queries) * keys, 0.0)

    def bound(self, row: Index, q0: Index, k0: Index) -> Register | None:
        """The last key of the block that a row sees, an i32; None where it sees all."""
        beyond = IndexValue(Index(self.keys - 1) + k0 * -1)
        found: Expr
        if self.causal:
            found = IndexValue(q0 + row + k0 * -1)
            if self.keys != self.keys_end and self.rows_end > self.keys:
                found = Apply("minimum", (found, beyond), "i64")
        elif self.keys != self.keys_end:
            found = beyond
        else:
            return None
        register = self.emitter.fresh("bound", "i32", 1)
        return self.emitter.assign(register, Apply("cast", (found,), "i32"))

    def score(self, at: Index, column: Index, bound: Register | None) -> Register:
        """A vector of scores, -inf for keys that the row does not see."""
        value = self.scratch.get(at, LANES)
        if bound is None:
            return value
        left = Apply("sub", (bound, Apply("cast", (IndexValue(column),), "i32")), "i32")
        lane = Apply("cast", (Apply("lane", (), "i64", LANES),), "i32", LANES)
        seen = Apply("le", (lane, Apply("splat", (left,), "i32", LANES)), "bool", LANES)
        return self.kept(self.op("where", seen, value, self.literal(-_INFINITE)))


class Forward(Attention):
    """Writes the kernel of the forward pass."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.mask = self.args[3] if len(self.args) > 3 else None
        self.several = self.keys_end > self.blocking.keys

    def write(self) -> None:
        for batch, head in self.pairs(self.heads):
            self._head(batch, head)

    def _head(self, batch: Index, head: Index) -> None:
        group = head if self.groups == self.heads else self._group(head)
        columns = whole(self.width)
        if self.several:
            self.scratch.fill(self.area("out"), self.rows_end * columns, 0.0)
        self.scratch.fill(self.area("top"), whole(self.rows_end), -_INFINITE)
        self.scratch.fill(self.area("total"), whole(self.rows_end), 0.0)
        for k0 in self.key_blocks():
            self.copy_across("keys_across", self.k, (batch, group), k0)
            self.copy_panels("values", self.v, (batch, group), k0)
            for q0, limit in self.query_blocks(k0):
                self._block((batch, head), q0, k0, limit)
        with self.emitter.loop("t", 0, self.queries) as row:
            self._finish(batch, head, row)

    def _group(self, head: Index) -> Index:
        if self.groups == 1 or not head.terms:
            return Index()
        size = Literal(self.heads // self.groups, "i64")
        return self.emitter.index("g", Apply("div", (IndexValue(head), size), "i64"))

    def _block(self, head: Position, q0: Index, k0: Index, limit: Index | None) -> None:
        rows, keys = self.blocking.rows, self.blocking.keys
        q = Rows(self.area("q"), whole(self.depth))
        self.copy_rows(
            self.q, head, (q0, rows, self.queries),
            lambda row, column: q.base + row * q.columns + column, self.scale,
        )  # fmt: skip
        self.scores_of(head, q0, k0, limit)
        with self.emitter.loop("r", 0, rows) as row:
            self._softmax(row, q0, k0, limit)
        columns = whole(self.width)
        Product(
            self.scratch,
            Rows(self.area("scores"), keys),
            Panels(self.area("values"), keys, columns),
            Rows(self.area("out") + q0 * columns, columns),
            rows, columns, keys, self.several, depth_limit=limit,
        ).write()  # fmt: skip

    def _softmax(self, row: Index, q0: Index, k0: Index, limit: Index | None) -> None:
        """The row's scores become exp(score - maximum); a NaN passes on through the sum."""
        emitter, keys = self.emitter, self.blocking.keys
        line = self.area("scores") + row * keys
        bound = self.bound(row, q0, k0)
        lowest = Apply("splat", (self.literal(-_INFINITE),), self.dtype, LANES)
        highest = self.kept(lowest)
        with emitter.loop("c", 0, keys, LANES, limit=limit) as column:
            value = self.score(line + column, column, bound)
            if bound is not None:
                self.scratch.put(line + column, value, LANES)
            emitter.assign(highest, self._greater(value, highest))
        top_at, total_at = self.area("top") + q0 + row, self.area("total") + q0 + row
        before = self.scratch.get(top_at)
        top = self.kept(Apply("reduce_max", (highest,), self.dtype))
        top = self.kept(self._greater(top, before))
        self.scratch.put(top_at, top)
        none = Apply("eq", (top, self.literal(-_INFINITE)), "bool")
        top = self.kept(self.op("where", none, self.literal(0.0), top))
        sums = self.kept(Apply("splat", (self.literal(0.0),), self.dtype, LANES))
        with emitter.loop("c", 0, keys, LANES, limit=limit) as column:
            value = self.scratch.get(line + column, LANES)
            value = self.kept(self.op("exp", self.op("sub", value, top)))
            self.scratch.put(line + column, value, LANES)
            emitter.assign(sums, self.op("add", sums, value))
        total: Expr = Apply("reduce_add", (sums,), self.dtype)
        if self.several:
            factor = self.kept(self.op("exp", self.op("sub", before, top)))
            total = self.op("fma", self.scratch.get(total_at), factor, total)
            self._scale(q0 + row, factor)
        self.scratch.put(total_at, total)

    def _greater(self, a: Expr, b: Expr) -> Apply:
        above = Apply("gt", (a, b), "bool", lanes_of(a))
        return self.op("where", above, a, b)

    def _scale(self, row: Index, factor: Register) -> None:
        columns = whole(self.width)
        for column in range(0, columns, LANES):
            at = self.area("out") + row * columns + column
            self.scratch.put(at, self.op("mul", self.scratch.get(at, LANES), factor), LANES)

    def _finish(self, batch: Index, head: Index, row: Index) -> None:
        total = self.scratch.get(self.area("total") + row)
        none = Apply("eq", (total, self.literal(0.0)), "bool")
        if LSE in self.roots:
            top = self.scratch.get(self.area("top") + row)
            lse = self.op("add", top, self.op("log", total))
            lse = self.op("where", none, self.literal(_INFINITE), lse)
            self.write_root(LSE, (batch, head, row), lse, 1)
        if OUT not in self.roots:
            return
        factor = self.op("where", none, self.literal(0.0), self.op("reciprocal", total))
        factor = self.kept(factor)
        line = self.area("out") + row * whole(self.width)
        for start, lanes in vectors(self.width):
            value = self.op("mul", self.scratch.get(line + start, lanes), factor)
            column = Index(start) + (LANE if lanes > 1 else 0)
            self.write_root(OUT, (batch, row, head, column), value, lanes)
