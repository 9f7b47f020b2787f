"""The backward pass of attention; see `attention.py` for the blocks.

The gradients of a block of keys and values are summed up over all queries before they are stored,
those of the queries over all blocks of keys: a worker has a group of heads to itself, so that no
two write to one place.
"""

from __future__ import annotations

from batucada.codegen.attention import Attention, vectors, whole
from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.nest import LANES
from batucada.codegen.tiles import Panels, Product, Rows, Turned
from batucada.ir.access import Position
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index
from batucada.ops.attention import DK, DQ, DV


class Backward(Attention):
    """Writes the kernel of the backward pass."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self.grad = self.node.args[0]
        self.out, self.lse = self.args[3:5]
        self.mask = self.args[5] if len(self.args) > 5 else None
        self.share = self.heads // self.groups  # query heads that read one head of keys
        self.depth_columns, self.width_columns = whole(self.depth), whole(self.width)

    def write(self) -> None:
        for batch, group in self.pairs(self.groups):
            queries = self.share * self.rows_end
            self.scratch.fill(self.area("dq"), queries * self.depth_columns, 0.0)
            for k0 in self.key_blocks():
                self._keys(batch, group, k0)
            if DQ in self.roots:
                self._store_queries(batch, group)

    def _keys(self, batch: Index, group: Index, k0: Index) -> None:
        outer = (batch, group)
        self.copy_across("keys_across", self.k, outer, k0)
        self.copy_across("values_across", self.v, outer, k0)
        self.copy_panels("keys", self.k, outer, k0)
        self.scratch.fill(self.area("dk"), self.blocking.keys * self.depth_columns, 0.0)
        self.scratch.fill(self.area("dv"), self.blocking.keys * self.width_columns, 0.0)
        with self.emitter.loop("p", 0, self.share) as member:
            head = group * self.share + member
            for q0, limit in self.query_blocks(k0):
                self._block((batch, head), member, q0, k0, limit)
        self._store_keys("dk", DK, outer, k0)
        self._store_keys("dv", DV, outer, k0)

    def _block(
        self, head: Position, member: Index, q0: Index, k0: Index, limit: Index | None
    ) -> None:
        self._copy_queries("q", self.q, head, q0, self.scale)
        self._copy_queries("grad", self.grad, head, q0)
        self._row_values(head, q0)
        self.scores_of(head, q0, k0, limit)
        self.across("products", "grad", "values_across", self.width, limit)
        with self.emitter.loop("r", 0, self.blocking.rows) as row:
            self._gradients_of_scores(row, q0, k0, limit)
        self._over_queries("dv", "scores", "grad", self.width_columns, limit)
        self._over_queries("dk", "products", "q", self.depth_columns, limit)
        self._over_keys(member * self.rows_end + q0, limit)

    def _copy_queries(
        self, area: str, node: Node, head: Position, q0: Index, scale: float = 1.0
    ) -> None:
        base, columns = self.area(area), whole(node.type.shape[-1])
        self.copy_rows(
            node, head, (q0, self.blocking.rows, self.queries),
            lambda row, column: base + row * columns + column, scale,
        )  # fmt: skip

    def _row_values(self, head: Position, q0: Index) -> None:
        """Of each query the logarithm of its sum, and dot(gradient, output); a row beyond the last
        has inf and 0, so that its probabilities are 0.
        """
        lse, dots = self.area("lse"), self.area("dots")
        rows, partial = self.blocking.rows, self.queries != self.rows_end
        limit = Index(self.queries) + q0 * -1 if partial else None
        with self.emitter.loop("r", 0, rows, limit=limit) as row:
            self.scratch.put(lse + row, self.read(self.lse, (*head, q0 + row), 1))
            line = self.area("grad") + row * self.width_columns
            self.scratch.put(dots + row, self._dot(line, (*head, q0 + row)))
        if not partial:
            return
        last = self.rows_end - rows
        with (
            self.only_at(last, q0),
            self.emitter.loop("r", self.queries - last, rows) as row,
        ):
            self.scratch.put(lse + row, self.literal(float("inf")))
            self.scratch.put(dots + row, self.literal(0.0))

    def _dot(self, line: Index, at: Position) -> Expr:
        sums: dict[int, Expr] = {}
        for start, lanes in vectors(self.width):
            column = Index(start) + (LANE if lanes > 1 else 0)
            out = self.read(self.out, (*at, column), lanes)
            grad = self.scratch.get(line + start, lanes)
            known = sums.get(lanes)
            sums[lanes] = self.kept(
                self.op("mul", grad, out) if known is None else self.op("fma", grad, out, known)
            )
        parts = [
            Apply("reduce_add", (part,), self.dtype) if lanes > 1 else part
            for lanes, part in sums.items()
        ]
        total = parts[0]
        for part in parts[1:]:
            total = self.op("add", total, part)
        return total

    def _gradients_of_scores(self, row: Index, q0: Index, k0: Index, limit: Index | None) -> None:
        """Scores become probabilities, and `products` the gradients of the scores."""
        keys = self.blocking.keys
        scores, products = (self.area(name) + row * keys for name in ("scores", "products"))
        lse = self.scratch.get(self.area("lse") + row)
        dot = self.scratch.get(self.area("dots") + row)
        bound = self.bound(row, q0, k0)
        with self.emitter.loop("c", 0, keys, LANES, limit=limit) as column:
            score = self.score(scores + column, column, bound)
            weight = self.kept(self.op("exp", self.op("sub", score, lse)))
            product = self.scratch.get(products + column, LANES)
            self.scratch.put(scores + column, weight, LANES)
            gradient = self.op("mul", weight, self.op("sub", product, dot))
            self.scratch.put(products + column, gradient, LANES)

    def _over_queries(
        self, out: str, left: str, right: str, columns: int, limit: Index | None
    ) -> None:
        """Four rows a tile: all keys up to whole vectors beyond the limit are computed, so none
        beyond those may be read.
        """
        keys, rows = self.blocking.keys, self.blocking.rows
        Product(
            self.scratch,
            Turned(self.area(left), keys),
            Rows(self.area(right), columns),
            Rows(self.area(out), columns),
            keys, columns, rows, True, (4, 3), row_limit=limit,
        ).write()  # fmt: skip

    def _over_keys(self, query: Index, limit: Index | None) -> None:
        keys, rows, columns = self.blocking.keys, self.blocking.rows, self.depth_columns
        Product(
            self.scratch,
            Rows(self.area("products"), keys),
            Panels(self.area("keys"), keys, columns),
            Rows(self.area("dq") + query * columns, columns),
            rows, columns, keys, True, depth_limit=limit,
        ).write()  # fmt: skip

    # ---- the results

    def _store_keys(self, area: str, result: int, outer: Position, k0: Index) -> None:
        if result not in self.roots:
            return
        width = self.roots[result].node.type.shape[-1]
        limit = Index(self.keys) + k0 * -1 if self.keys != self.keys_end else None
        batch, group = outer
        with self.emitter.loop("r", 0, self.blocking.keys, limit=limit) as row:
            line = self.area(area) + row * whole(width)
            self._store_row(result, (batch, k0 + row, group), line, width)

    def _store_queries(self, batch: Index, group: Index) -> None:
        with (
            self.emitter.loop("p", 0, self.share) as member,
            self.emitter.loop("r", 0, self.queries) as row,
        ):
            line = self.area("dq") + (member * self.rows_end + row) * self.depth_columns
            at = (batch, row, group * self.share + member)
            self._store_row(DQ, at, line, self.depth, self.scale)

    def _store_row(
        self, result: int, at: Position, line: Index, width: int, scale: float = 1.0
    ) -> None:
        for start, lanes in vectors(width):
            value: Expr = self.scratch.get(line + start, lanes)
            value = value if scale == 1 else self.op("mul", value, self.literal(scale))
            column = Index(start) + (LANE if lanes > 1 else 0)
            self.write_root(result, (*at, column), value, lanes)
