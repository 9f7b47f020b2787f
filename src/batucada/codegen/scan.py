"""Stages that accumulate along a dimension: `scan`.

Where the dimension is not the last one, vectors run along the last, several side by side; along the
last one every row is serial.  Threads share the other dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.halves import apply_op
from batucada.codegen.nest import LANES, identity, segments
from batucada.ir.access import flat
from batucada.ir.loops import Apply, Expr, Index, Literal, Register, lanes_of
from batucada.ir.types import DType

_TOGETHER = 4  # vectors side by side: two cache lines of f32

_WIDE: dict[DType, DType] = {"f32": "f64", "f16": "f32", "bf16": "f32"}
_REDUCTION = {"add": "sum", "mul": "prod", "maximum": "amax", "minimum": "amin"}


class Scan:
    """Writes the kernel of a scan."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.dim, self.by = self.node.integer("dim"), str(self.node.attr("by"))
        self.shape = self.node.type.shape
        self.dtype: DType = self._accumulator()

    def _accumulator(self) -> DType:
        own = self.node.type.dtype
        if self.by == "logaddexp" and own == "f32":
            return own
        return _WIDE.get(own, own)

    def write(self) -> None:
        last = len(self.shape) - 1
        outer = [d for d in range(len(self.shape)) if d not in (self.dim, last)]
        self._outer({}, outer)

    def _outer(self, at: dict[int, Index], left: list[int]) -> None:
        parallel = self.emitter.stage.parallel and not at
        if left:
            with self.emitter.loop(f"d{left[0]}", 0, self.shape[left[0]], 1, parallel) as index:
                return self._outer({**at, left[0]: index}, left[1:])
        last = len(self.shape) - 1
        if self.dim == last:
            return self._along(at, [(None, 1)])
        extent, together = self.shape[last], _TOGETHER * LANES
        whole = extent - extent % together
        if whole:
            with self.emitter.loop("v", 0, whole, together, parallel and whole == extent) as index:
                starts = [index + n * LANES + LANE for n in range(_TOGETHER)]
                self._along(at, [(start, LANES) for start in starts])
        rest = extent - whole
        columns = [(whole + n * LANES, LANES) for n in range(rest // LANES)]
        columns += [(whole + start, lanes) for start, lanes in segments(rest)]
        if columns:
            wide = [(Index(s) + (LANE if n > 1 else 0), n) for s, n in columns]
            self._along(at, wide)
        return None

    def _along(self, at: dict[int, Index], columns: Sequence[tuple[Index | None, int]]) -> None:
        """One accumulator for each of the columns (of the last dimension; None is the row)."""
        totals = [self._start(lanes) for _, lanes in columns]
        with self.emitter.loop("s", 0, self.shape[self.dim]) as index:
            for total, (column, lanes) in zip(totals, columns, strict=True):
                found = {**at, self.dim: index}
                if column is not None:
                    found[len(self.shape) - 1] = column
                self._step(total, tuple(found[d] for d in range(len(self.shape))), lanes)

    def _start(self, lanes: int) -> Register:
        known = _REDUCTION.get(self.by)
        value = Literal(identity(known, self.dtype) if known else float("-inf"), self.dtype)
        register = self.emitter.fresh("total", self.dtype, lanes)
        spread = value if lanes == 1 else Apply("splat", (value,), self.dtype, lanes)
        return self.emitter.assign(register, spread)

    def _step(self, total: Register, at: tuple[Index, ...], lanes: int) -> None:
        value = self._cast(self.emitter.value(self.node.args[0], at, lanes), self.dtype)
        if lanes_of(value) != lanes:
            value = Apply("splat", (value,), self.dtype, lanes)
        self.emitter.assign(total, self._combined(total, value))
        result = self._cast(total, self.node.type.dtype)
        self.emitter.store(self.root.buffer, flat(self.shape, at), result, lanes)

    def _cast(self, value: Expr, dtype: DType) -> Expr:
        same = self.dtype == self.node.type.dtype
        return value if same else Apply("cast", (value,), dtype, lanes_of(value))

    def _combined(self, total: Register, value: Expr) -> Expr:
        if self.by != "logaddexp":
            return apply_op(self.by, (total, value), self.dtype)

        def op(name: str, *args: Expr) -> Expr:
            return apply_op(name, args, self.dtype)

        low, high = op("minimum", total, value), op("maximum", total, value)
        infinite = Literal(float("inf"), self.dtype)
        finite = apply_op("lt", (op("abs", low), infinite), "bool")
        differ = apply_op("ne", (low, high), "bool")
        found = op("add", high, op("log1p", op("exp", op("sub", low, high))))
        return op("where", apply_op("or", (finite, differ), "bool"), found, value)
