"""Loop nests of map and reduce stages.

Neighbouring dimensions that every access walks as one are merged.  The last dimension runs in
vectors of 8 or 16, its rest in vectors of 4, 2 and 1.  A reduction is a sequence of inner loops:
each computes the reductions that need no later one, and what is read again is computed again; short
rows are unrolled and stay in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batucada.codegen.emitter import LANE, Emitter
from batucada.codegen.vecmath import VECTOR_FUNCTIONS
from batucada.ir.access import Position, broadcast_index, flat, memory_index, through_view
from batucada.ir.graph import Node
from batucada.ir.loops import Apply, Expr, Index, Literal, Register, dtype_of, lanes_of
from batucada.ir.types import DType
from batucada.mapping.program import Stage, canonical
from batucada.ops import OPS

LANES = 8
_UNROLLED = 32  # elements of a row that stays in registers
_SUMS = 4  # independent partial results of a long reduction

_COMBINE = {"sum": "add", "prod": "mul", "amax": "maximum", "amin": "minimum"}
_ACROSS = {"sum": "reduce_add", "prod": "reduce_mul", "amax": "reduce_max", "amin": "reduce_min"}


@dataclass(frozen=True, slots=True)
class Dim:
    """A loop over dimension `number` of the stage's domain, after merging."""

    number: int
    extent: int


def segments(extent: int) -> list[tuple[int, int]]:
    """(start, lanes) of the rest behind the whole vectors."""
    start, found = extent - extent % LANES, []
    for lanes in (4, 2, 1):
        if extent - start >= lanes:
            found.append((start, lanes))
            start += lanes
    return found


def merged(emitter: Emitter) -> tuple[list[Dim], list[Dim]]:
    """The dimensions that are kept and those that are reduced, outermost first."""
    stage = emitter.stage
    walks = list(_walks(emitter))
    dims: list[Dim] = []
    for number, extent in enumerate(stage.extents):
        previous = dims[-1] if dims else None
        if (
            previous
            and (previous.number in stage.reduced) == (number in stage.reduced)
            and all(w.get(previous.number, 0) == w.get(number, 0) * extent for w in walks)
        ):
            dims[-1] = Dim(number, previous.extent * extent)
        else:
            dims.append(Dim(number, extent))
    kept = [d for d in dims if d.number not in stage.reduced]
    return kept, [d for d in dims if d.number in stage.reduced]


def _walks(emitter: Emitter) -> Iterator[dict[int, int]]:
    """For every access of the stage, its distance in elements along each dimension."""
    stage = emitter.stage
    todo: list[tuple[Node, Position]] = []
    for root in stage.roots:
        at = _own_point(stage, root.node)
        yield _factors(flat(root.node.type.shape, at))
        todo.append((root.node, at))
    for node in stage.nodes:
        if OPS[node.op].kind == "reduce":
            full = canonical(node.args[0].type.shape, stage.extents, stage.reduced)
            todo.append((node.args[0], full or ()))
    seen: set[tuple[Node, Position]] = set()
    while todo:
        node, at = todo.pop()
        if (node, at) in seen:
            continue
        seen.add((node, at))
        found = memory_index(node, at, emitter.in_memory)
        if found is not None or node.op == "iota":
            yield _factors(at[0] if found is None else found[1])
        else:
            todo += _arguments(node, at)


def _factors(index: Index) -> dict[int, int]:
    return {int(variable[1:]): factor for variable, factor in index.terms}


def _arguments(node: Node, at: Position) -> list[tuple[Node, Position]]:
    """What a map or a view reads, and where; of a look-up, the part that is no looked-up index."""
    if node.args and OPS[node.op].kind == "view":
        return [(node.args[0], through_view(node, at) or ())]
    if OPS[node.op].kind == "map":
        return [(arg, broadcast_index(arg.type.shape, at)) for arg in node.args]
    if OPS[node.op].kind == "lookup":
        x, *indices = node.args
        dims = node.integers("dims")
        rest = [1 if d in dims else extent for d, extent in enumerate(x.type.shape)]
        points = [(index, broadcast_index(index.type.shape, at)) for index in indices]
        return [(x, broadcast_index(tuple(rest), at)), *points]
    return []


def _own_point(stage: Stage, node: Node) -> Position:
    at = canonical(node.type.shape, stage.extents, stage.reduced)
    assert at is not None, f"{stage.name}: {node.op} has no place in the domain"
    return at


class Nest:
    """Writes a map or reduce stage into an emitter."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.stage = emitter.stage
        self.kept, self.over = merged(emitter)
        self.point: dict[int, Index] = {}
        self.last: int | None = None  # the kept dimension along which vectors run, if one is
        self.columns: list[Index] = []  # the vectors of it that are taken together
        self.depths = {node: self._depth(node) for node in self.stage.nodes}

    def _depth(self, root: Node) -> int:
        """How many reductions of this stage lie one behind the other below a node."""
        known: dict[Node, int] = {}

        def depth(node: Node) -> int:
            if node not in known:
                below = 0 if self.emitter.in_memory(node) else max(map(depth, node.args), default=0)
                known[node] = below + (
                    node in self.emitter.inside and OPS[node.op].kind == "reduce"
                )
            return known[node]

        return depth(root)

    def at(self, node: Node) -> Position:
        variables = [self.point.get(i, Index()) for i in range(len(self.stage.extents))]
        found = canonical(node.type.shape, self.stage.extents, self.stage.reduced, variables)
        assert found is not None
        return found

    def write(self) -> None:
        if not self.kept and not self.over:
            return self._rows(1)
        vector_over = bool(self.over) and (
            not self.kept or self.over[-1].number > self.kept[-1].number
        )
        outer = self.kept if vector_over else self.kept[:-1]
        last = None if vector_over or not self.kept else self.kept[-1]
        self._outer_loops(outer, last)
        return None

    def _outer_loops(self, outer: list[Dim], last: Dim | None, first: bool = True) -> None:
        if not outer:
            if last is None:
                return self._rows(1)
            return self._vectors(last, first and self.stage.parallel)
        dim, parallel = outer[0], first and self.stage.parallel
        with self.emitter.loop(f"d{dim.number}", 0, dim.extent, 1, parallel) as index:
            self.point[dim.number] = index
            self._outer_loops(outer[1:], last, False)
        return None

    def _vectors(self, dim: Dim, parallel: bool) -> None:
        """The last kept dimension in vectors.  Threads share them where there is nothing else."""
        self.last = dim.number
        start = 0
        for count, lanes in (self._together(dim.extent // LANES, parallel), (1, LANES)):
            width = count * lanes
            stop = dim.extent - (dim.extent - start) % width if width else start
            if start < stop:
                apart = parallel and stop - start == dim.extent > width
                with self.emitter.loop(f"d{dim.number}", start, stop, width, apart) as index:
                    self.columns = [index + v * lanes + LANE for v in range(count)]
                    self._rows(lanes)
            start = stop
        for start, lanes in segments(dim.extent):
            self.columns = [Index(start) + (LANE if lanes > 1 else 0)]
            self._rows(lanes)

    def _together(self, vectors: int, parallel: bool) -> tuple[int, int]:
        """The vectors to take at a time, and their lanes.  Several in a reduction, so that whole
        cache lines are read; two as one of twice the lanes for elementary functions, whose long
        chains leave the processor waiting, unless threads were to share an odd number of them.
        """
        if self.stage.reduced:
            return min(vectors, 4 if vectors >= 8 else 2), LANES
        long = any(
            node.op in VECTOR_FUNCTIONS and node.type.dtype != "f64" for node in self.stage.nodes
        )
        return 1, 2 * LANES if long and not (parallel and vectors % 2) else LANES

    def each_column(self) -> Iterator[int]:
        """Turns the point to each of the vectors that are taken together."""
        if self.last is None:
            yield 0
            return
        for number, column in enumerate(self.columns):
            self.point[self.last] = column
            yield number

    def _rows(self, lanes: int) -> None:
        """Everything at one point (or vector of points) of the dimensions that are kept."""
        roots = [(root.node, root.buffer) for root in self.stage.roots]
        if not self.stage.reduced:
            for _ in self.each_column():
                self.emitter.write(roots, self.at, lanes)
            return
        full = {n for n, _ in roots if _is_full(self.stage, n)}
        for depth in range(max(self.depths.values()) + 1):
            reduces = [
                n
                for n in self.stage.nodes
                if OPS[n.op].kind == "reduce" and self.depths[n] == depth + 1
            ]
            stores = [(n, b) for n, b in roots if n in full and self.depths[n] == depth]
            if reduces or stores:
                _Pass(self, reduces, stores, lanes).write()
        for _ in self.each_column():
            self.emitter.write([(n, b) for n, b in roots if n not in full], self.at, lanes)
        return


def _is_full(stage: Stage, node: Node) -> bool:
    """Has the reduced dimensions too.  Where those are all of extent 1, nothing is reduced."""
    at = _own_point(stage, node)
    return {f"d{i}" for i in stage.reduced} <= {v for index in at for v, _ in index.terms}


class _Pass:
    """One inner loop over the reduced dimensions."""

    def __init__(
        self, nest: Nest, reduces: list[Node], stores: list[tuple[Node, str]], lanes: int
    ) -> None:
        self.nest = nest
        self.emitter = nest.emitter
        self.reduces = reduces
        self.stores = stores
        self.lanes = lanes  # of the kept dimension; 1 where the vector runs along the reduced one
        self.sums: dict[tuple[Node, int, int], Register] = {}

    def write(self) -> None:
        over = self.nest.over
        vector_over = not self.nest.kept or over[-1].number > self.nest.kept[-1].number
        self._loops(over[:-1] if vector_over else over, over[-1] if vector_over else None)
        self._finish()

    def _loops(self, serial: list[Dim], last: Dim | None) -> None:
        self._declare(last)
        self._serial(serial, last)

    def _serial(self, serial: list[Dim], last: Dim | None) -> None:
        if not serial:
            if last is not None:
                return self._along_last(last)
            for column in self.nest.each_column():
                self._body(self.lanes, column)
            return None
        dim = serial[0]
        with self.emitter.loop(f"d{dim.number}", 0, dim.extent) as index:
            self.nest.point[dim.number] = index
            self._serial(serial[1:], last)
        return None

    def _shapes(self, last: Dim | None) -> list[tuple[int, int]]:
        """(lanes, copy) of each partial result; one even where there is nothing to sum up."""
        if last is None:
            return [(self.lanes, c) for c in range(len(self.nest.columns) or 1)]
        whole = last.extent // LANES
        copies = min(_SUMS, whole)
        found = [(LANES, c) for c in range(copies)]
        return [*found, *((lanes, 0) for _, lanes in segments(last.extent))] or [(1, 0)]

    def _declare(self, last: Dim | None) -> None:
        for node in self.reduces:
            for lanes, copy in self._shapes(last):
                start = Literal(identity(node.op, node.type.dtype), node.type.dtype)
                register = self.emitter.fresh("sum", node.type.dtype, lanes)
                value = start if lanes == 1 else Apply("splat", (start,), node.type.dtype, lanes)
                self.sums[node, lanes, copy] = self.emitter.assign(register, value)

    def _along_last(self, dim: Dim) -> None:
        """The last reduced dimension in vectors, several at a time."""
        whole = dim.extent // LANES
        point = self.nest.point
        if dim.extent <= _UNROLLED:
            for copy in range(whole):
                point[dim.number] = Index(copy * LANES) + LANE
                self._body(LANES, copy)
        else:
            self._vectors(dim, whole)
        for start, lanes in segments(dim.extent):
            point[dim.number] = Index(start) + (LANE if lanes > 1 else 0)
            self._body(lanes, 0)

    def _vectors(self, dim: Dim, whole: int) -> None:
        together = whole - whole % _SUMS
        with self.emitter.loop(f"d{dim.number}", 0, together * LANES, _SUMS * LANES) as index:
            for copy in range(_SUMS):
                self.nest.point[dim.number] = index + copy * LANES + LANE
                self._body(LANES, copy)
        for vector in range(together, whole):
            self.nest.point[dim.number] = Index(vector * LANES) + LANE
            self._body(LANES, vector - together)

    def _body(self, lanes: int, copy: int) -> None:
        for node in self.reduces:
            source = node.args[0]
            value = self.emitter.value(source, self.nest.at(source), lanes)
            register = self.sums[node, lanes, copy]
            total = Apply(_COMBINE[node.op], (register, value), register.dtype, register.lanes)
            self.emitter.assign(register, total)
        self.emitter.write(self.stores, self.nest.at, lanes)

    def _finish(self) -> None:
        across = self.nest.last is None
        for column in self.nest.each_column():
            for node in self.reduces:
                parts: list[Expr] = [
                    r for (n, _, c), r in self.sums.items() if n is node and (across or c == column)
                ]
                result = self._joined(node, parts, across)
                register = self.emitter.fresh("total", node.type.dtype, lanes_of(result))
                total = self.emitter.assign(register, result)
                self.emitter.define(node, self.nest.at(node), self.lanes, total)
        for dim in self.nest.over:
            self.nest.point.pop(dim.number, None)

    def _joined(self, node: Node, parts: list[Expr], across: bool) -> Expr:
        by_lanes: dict[int, Expr] = {}
        for part in parts:
            lanes = lanes_of(part)
            known = by_lanes.get(lanes)
            by_lanes[lanes] = part if known is None else _combined(node.op, known, part)
        if not across:
            return next(iter(by_lanes.values()))
        scalars = [
            Apply(_ACROSS[node.op], (p,), dtype_of(p)) if lanes > 1 else p
            for lanes, p in by_lanes.items()
        ]
        result: Expr = scalars[0]
        for scalar in scalars[1:]:
            result = _combined(node.op, result, scalar)
        return result


def _combined(op: str, a: Expr, b: Expr) -> Expr:
    return Apply(_COMBINE[op], (a, b), dtype_of(a), lanes_of(a))


def identity(op: str, dtype: DType) -> float | int | bool:
    """The value that changes nothing."""
    if op in ("sum", "prod"):
        return (
            (op == "prod")
            if dtype == "bool"
            else int(op == "prod")
            if dtype[0] in "iu"
            else float(op == "prod")
        )
    highest = op == "amin"
    if dtype in ("f64", "f32", "f16", "bf16"):
        return float("inf") if highest else float("-inf")
    if dtype == "bool":
        return highest
    bits = {"i64": 63, "i32": 31, "i16": 15, "i8": 7}.get(dtype)
    if bits is None:
        return 255 if highest else 0
    return 2**bits - 1 if highest else -(2**bits)
