"""Stages that sort along the last dimension, and that search in what is sorted.

`argsort` merges runs of 1, 2, 4, ... places from the result's memory to the stage's scratch and
back, without a branch: which run a place comes from is a number, and it moves that run's index.  A
row of n takes n log2(n) such steps.  `searchsorted` halves the distance, in as many steps for every
value.
"""

from __future__ import annotations

from collections.abc import Callable

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.halves import apply_op
from batucada.codegen.nest import LANES, segments
from batucada.ir.access import Position, flat
from batucada.ir.loops import Apply, Expr, Index, IndexValue, Literal, Register
from batucada.ir.types import FLOATS, Shape


def _int(value: int) -> Literal:
    return Literal(value, "i64")


def _logic(op: str, *args: Expr) -> Expr:
    return apply_op(op, args, "bool")


def _rows(
    emitter: Emitter, shape: Shape, body: Callable[[Position], None], at: Position = ()
) -> None:
    """A loop for each dimension of `shape`; threads share the first."""
    if len(at) == len(shape):
        return body(at)
    parallel = emitter.stage.parallel and not at
    with emitter.loop(f"d{len(at)}", 0, shape[len(at)], 1, parallel) as index:
        return _rows(emitter, shape, body, (*at, index))


class ArgSort:
    """Writes the kernel of an argsort."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.x = self.node.args[0]
        self.shape = self.node.type.shape
        self.extent = self.shape[-1]
        self.row: Position = ()

    def write(self) -> None:
        _rows(self.emitter, self.shape[:-1], self._row)

    def _row(self, row: Position) -> None:
        self.row = row
        passes = max(self.extent - 1, 0).bit_length()
        here, there = self.root.buffer, self.emitter.stage.scratch
        if passes % 2:
            here, there = there, here
        self._count(here)
        for number in range(passes):
            self._pass(here, there, 2**number)
            here, there = there, here

    def _place(self, at: Index) -> Index:
        return flat(self.shape, (*self.row, at))

    def _count(self, buffer: str) -> None:
        """0, 1, 2, ..."""
        whole = self.extent - self.extent % LANES
        if whole:
            with self.emitter.loop("n", 0, whole, LANES) as index:
                self._ramp(buffer, index, LANES)
        for start, lanes in segments(self.extent):
            self._ramp(buffer, Index(start), lanes)

    def _ramp(self, buffer: str, start: Index, lanes: int) -> None:
        ramp: Expr = IndexValue(start)
        if lanes > 1:
            ramp = Apply("add", (Apply("lane", (), "i64", lanes), ramp), "i64", lanes)
        at = self._place(start + (LANE if lanes > 1 else 0))
        self.emitter.store(buffer, at, ramp, lanes)

    def _pass(self, source: str, target: str, width: int) -> None:
        """Every two runs of `width` become one; what is left over at the end is shorter."""
        pairs, rest = divmod(self.extent, 2 * width)
        if pairs:
            with self.emitter.loop(f"run{width}", 0, pairs * 2 * width, 2 * width) as start:
                self._merge_alike(source, target, start, width)
        if rest:
            start = Index(pairs * 2 * width)
            self._merge(source, target, start, min(width, rest), max(0, rest - width))

    def _merge_alike(self, source: str, target: str, start: Index, width: int) -> None:
        """Two runs of one length from both ends at once: in `width` steps from the front, no run
        is used up, nor in as many from the back, and neither waits for the other.
        """
        emitter = self.emitter
        front = [self._counter(start), self._counter(start + width)]
        back = [self._counter(start + (width - 1)), self._counter(start + (2 * width - 1))]
        with emitter.loop(f"k{width}", 0, width) as step:
            for heads, at, by in (
                (front, start + step, 1),
                (back, start + step * -1 + (2 * width - 1), -1),
            ):
                left, right = (
                    emitter.indexed(emitter.load(source, self._place(Index.of(h.name)), 1))
                    for h in heads
                )
                keys = [emitter.value(self.x, (*self.row, place), 1) for place in (left, right)]
                sooner = self._before(keys[1], keys[0])
                take = sooner if by == 1 else _logic("not", sooner)
                self._move(heads, (left, right), take, by, target, at)

    def _counter(self, start: Index) -> Register:
        register = self.emitter.assign(self.emitter.fresh("head", "i64", 1), IndexValue(start))
        self.emitter.blocks[-1].variables.add(register.name)
        return register

    def _move(
        self,
        heads: list[Register],
        places: tuple[Index, Index],
        take_right: Expr,
        by: int,
        target: str,
        at: Index,
    ) -> None:
        """Store the place of one of the runs, and go on in that run."""
        emitter = self.emitter
        right = emitter.assign(emitter.fresh("right", "bool", 1), take_right)
        chosen = apply_op("where", (right, IndexValue(places[1]), IndexValue(places[0])), "i64")
        emitter.store(target, self._place(at), chosen, 1)
        for head, amounts in ((heads[0], (0, by)), (heads[1], (by, 0))):
            step = apply_op("where", (right, *map(_int, amounts)), "i64")
            emitter.assign(head, apply_op("add", (head, step), "i64"))

    def _merge(self, source: str, target: str, start: Index, left: int, right: int) -> None:
        emitter = self.emitter
        ends = [IndexValue(start + left), IndexValue(start + (left + right))]
        heads = [self._counter(start), self._counter(start + left)]
        with emitter.loop(f"k{left}", 0, left + right) as step:
            if not right:
                place = emitter.load(source, self._place(start + step), 1)
                return emitter.store(target, self._place(start + step), place, 1)
            left_place, right_place = (
                self._head(source, *pair) for pair in zip(heads, ends, strict=True)
            )
            places = (left_place, right_place)
            keys = [emitter.value(self.x, (*self.row, place), 1) for place in places]
            open_left = _logic("lt", heads[0], ends[0])
            open_right = _logic("lt", heads[1], ends[1])
            sooner = _logic("and", open_right, self._before(keys[1], keys[0]))
            take_right = _logic("or", sooner, _logic("not", open_left))
            self._move(heads, places, take_right, 1, target, start + step)
        return None

    def _head(self, source: str, head: Register, end: Expr) -> Index:
        """The place at the head of a run; the last one where the run is used up."""
        last = apply_op("sub", (end, _int(1)), "i64")
        at = self.emitter.indexed(apply_op("minimum", (head, last), "i64"))
        return self.emitter.indexed(self.emitter.load(source, self._place(at), 1))

    def _before(self, x: Expr, y: Expr) -> Expr:
        """x comes before y although it stood behind it."""
        descending = bool(self.node.attr("descending"))
        found = _logic("gt" if descending else "lt", x, y)
        if self.x.type.dtype not in FLOATS:
            return found
        greatest, other = (x, y) if descending else (y, x)
        nan = _logic("and", _logic("isnan", greatest), _logic("not", _logic("isnan", other)))
        return _logic("or", found, nan)


class Search:
    """Writes the kernel of a searchsorted."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        (self.node,), (self.root,) = emitter.stage.nodes, emitter.stage.roots
        self.sequence, self.values = self.node.args

    def write(self) -> None:
        _rows(self.emitter, self.node.type.shape, self._value)

    def _value(self, at: Position) -> None:
        emitter, extent = self.emitter, self.sequence.type.shape[-1]
        value = emitter.value(self.values, at, 1)
        found = emitter.assign(emitter.fresh("found", "i64", 1), _int(0))
        order = "gt" if self.node.attr("right") else "ge"
        for bit in reversed(range(extent.bit_length())):
            further = emitter.assign(
                emitter.fresh("further", "i64", 1), apply_op("add", (found, _int(2**bit)), "i64")
            )
            last = apply_op("minimum", (further, _int(extent)), "i64")
            place = emitter.indexed(apply_op("sub", (last, _int(1)), "i64"))
            key = emitter.value(self.sequence, (*at[:-1], place), 1)
            inside = _logic("le", further, _int(extent))
            behind = _logic("and", inside, _logic("not", _logic(order, key, value)))
            emitter.assign(found, apply_op("where", (behind, further, found), "i64"))
        emitter.store(self.root.buffer, flat(self.node.type.shape, at), found, 1)
