"""Emits the value of a graph node at a point of a loop nest, as registers of the loop language.

Values are computed once for each point and at the outermost open loop that knows the point, so what
does not depend on an inner loop is hoisted out of it.  A vector runs along the pseudo-variable
`lane`: an index holds `lane` with the distance, in elements, from one lane's element to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from batucada.codegen.halves import apply_op
from batucada.ir.access import Position, broadcast_index, flat, memory_index, through_view
from batucada.ir.graph import Node
from batucada.ir.loops import (
    Apply,
    Check,
    Expr,
    For,
    Index,
    IndexValue,
    Kernel,
    Literal,
    Load,
    Param,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    dtype_of,
    lanes_of,
)
from batucada.ir.types import DType, Shape
from batucada.ir.verify import VerifyError
from batucada.mapping import Program, Stage
from batucada.mapping.program import SLACK
from batucada.ops import OPS

LANE = Index.of("lane")


@dataclass
class _Block:
    """An open loop: its statements so far, its variables (the registers that indices use among
    them), and the values computed in it.
    """

    variables: set[str]
    statements: list[Stmt] = field(default_factory=list)
    values: dict[tuple[Node, Position, int], Expr] = field(default_factory=dict)
    addresses: dict[tuple[Node, Position, int, int], list[Register]] = field(default_factory=dict)


class Emitter:
    """Writes one kernel of a stage."""

    def __init__(self, program: Program, stage: Stage, codes: Mapping[Node, int]) -> None:
        self.program = program
        self.stage = stage
        self.codes = codes
        self.inside = set(stage.nodes)
        self.blocks = [_Block(set())]
        self.params: dict[str, str] = {}  # buffer -> the kernel's name for it, in order of use
        self._written: set[str] = set()
        self._read_on: set[str] = set()  # buffers that a vector may reach behind
        self._count = 0
        self._floor = 0  # a parallel loop is all of its kernel: nothing is hoisted out of it

    def turn_to(self, stage: Stage) -> None:
        """Go on with the values of another stage; what is known of the first one's is forgotten."""
        self.stage = stage
        self.inside = set(stage.nodes)
        for block in self.blocks:
            block.values.clear()
            block.addresses.clear()

    # ---- statements

    def kernel(self, name: str) -> Kernel:
        """Its parameters are named by position, so that equal work on other buffers is an equal
        kernel.
        """
        types = {buffer: self.program.buffers[buffer].type for buffer in self.params}
        params = tuple(
            Param(param, types[b].dtype, self._size(b), b in self._written)
            for b, param in self.params.items()
        )
        return Kernel(name, params, tuple(self.blocks[0].statements))

    def _size(self, buffer: str) -> int:
        slack = SLACK if buffer in self._read_on else 0
        return max(self.program.buffers[buffer].type.size, 1) + slack

    def _param(self, buffer: str) -> str:
        return self.params.setdefault(buffer, f"p{len(self.params)}")

    def append(self, statement: Stmt) -> None:
        self.blocks[-1].statements.append(statement)

    @contextmanager
    def loop(
        self,
        variable: str,
        start: int,
        stop: int,
        step: int = 1,
        parallel: bool = False,
        limit: Index | None = None,
    ) -> Iterator[Index]:
        """A loop whose body is written inside the `with`; a loop of one turn is no loop."""
        if limit is not None and not limit.terms:
            stop, limit = min(stop, limit.offset), None
        if 0 < stop - start <= step and not parallel and limit is None:
            yield Index(start)
            return
        self.blocks.append(_Block({variable}))
        self._floor = 1 if parallel else self._floor
        yield Index.of(variable)
        body = self.blocks.pop()
        statements = tuple(body.statements)
        self.append(For(variable, start, stop, step, statements, parallel, limit))

    def index(self, prefix: str, value: Expr) -> Index:
        """An i64 that is computed in the open loop, as a part of indices."""
        register = self.assign(self.fresh(prefix, "i64", 1), value)
        self.blocks[-1].variables.add(register.name)
        return Index.of(register.name)

    def fresh(self, prefix: str, dtype: DType, lanes: int) -> Register:
        self._count += 1
        return Register(f"{prefix}{self._count}", dtype, lanes)

    def assign(self, register: Register, value: Expr) -> Register:
        self.append(Set(register, value))
        return register

    def indexed(self, value: Expr) -> Index:
        """An i64 scalar as an index, in the loop that is open."""
        register = self.assign(self.fresh("i", "i64", 1), value)
        self.blocks[-1].variables.add(register.name)
        return Index.of(register.name)

    def store(self, buffer: str, index: Index, value: Expr, lanes: int) -> None:
        """Lane i goes to index + i * stride, where the stride is the factor of `lane`."""
        self._written.add(buffer)
        param = self._param(buffer)
        stride = dict(index.terms).get("lane", 0)
        base = _without_lane(index)
        if lanes == 1 or stride == 1:
            spread = (
                value
                if lanes_of(value) == lanes
                else Apply("splat", (value,), dtype_of(value), lanes)
            )
            self.append(Store(param, base, spread, lanes))
            return
        for lane in range(lanes):
            part = (
                Apply("lane_of", (value,), dtype_of(value), 1, lane)
                if lanes_of(value) > 1
                else value
            )
            self.append(Store(param, base + stride * lane, part, 1))

    def prefetch(self, buffer: str, index: Index) -> None:
        self.append(Prefetch(self._param(buffer), index))

    # ---- values

    def define(self, node: Node, at: Position, lanes: int, value: Expr) -> None:
        """`value` is what `node` is at this point from here on, in the loop that is open."""
        self.blocks[-1].values[node, at, _lanes_at(at, lanes)] = value

    def value(self, node: Node, at: Position, lanes: int) -> Expr:
        lanes = _lanes_at(at, lanes)
        key = (node, at, lanes)
        for block in self.blocks:
            if key in block.values:
                return block.values[key]
        home = self._home(at)
        value = self._compute(node, at, lanes)
        if isinstance(value, Load | Apply | IndexValue):
            value = self._in_register(home, value)
        home.values[key] = value
        return value

    def _in_register(self, home: _Block, value: Expr) -> Register:
        register = self.fresh("r", dtype_of(value), lanes_of(value))
        home.statements.append(Set(register, value))
        return register

    def _home(self, at: Position) -> _Block:
        """The outermost open block in which every variable of the point is known."""
        missing = {v for index in at for v, _ in index.terms if v != "lane"}
        for depth, block in enumerate(self.blocks):
            missing -= block.variables
            if not missing and depth >= self._floor:
                return block
        raise VerifyError(f"{self.stage.name}: no loop over {missing}")

    def in_memory(self, node: Node) -> bool:
        return node in self.program.places and node not in self.inside

    def _compute(self, node: Node, at: Position, lanes: int) -> Expr:
        found = memory_index(node, at, self.in_memory)
        if found is not None:
            return self.load(self.program.places[found[0]], found[1], lanes)
        if node.op == "constant":
            value = node.attr("value")
            assert isinstance(value, int | float)
            return Literal(value, node.type.dtype)
        if node.op == "iota":
            return self._ramp(at[0], lanes)
        kind = OPS[node.op].kind
        if kind == "lookup":
            return self._lookup(node, at, lanes)
        if kind == "view":
            below = through_view(node, at)
            if below is None:
                raise VerifyError(
                    f"{self.stage.name}: {node.op} of {node.type} has no index ({node.src})"
                )
            return self.value(node.args[0], below, lanes)
        if kind != "map":
            raise VerifyError(f"{self.stage.name}: {node.op} is not ready at its use ({node.src})")
        return self._map(node, at, lanes)

    def has_slack(self, node: Node) -> bool:
        """Whether there is memory behind a value that lies in memory."""
        return self.program.buffers[self.program.places[node]].has_slack

    def wide(self, node: Node, at: Position, lanes: int) -> Expr:
        """A value in memory, a vector of which may end up to SLACK elements behind its buffer."""
        found = memory_index(node, at, self.in_memory)
        assert found is not None
        value = self.load(self.program.places[found[0]], found[1], lanes, wide=True)
        return self.assign(self.fresh("w", node.type.dtype, lanes), value)

    def load(self, buffer: str, index: Index, lanes: int, wide: bool = False) -> Expr:
        dtype = self.program.buffers[buffer].type.dtype
        self._read_on |= {buffer} if wide else set()
        param = self._param(buffer)
        stride = dict(index.terms).get("lane", 0)
        base = _without_lane(index)
        if lanes == 1 or stride == 0:
            return Load(param, base, dtype)
        if stride == 1:
            return Load(param, base, dtype, lanes)
        parts = tuple(Load(param, base + stride * lane, dtype) for lane in range(lanes))
        return Apply("pack", parts, dtype, lanes)

    def _ramp(self, index: Index, lanes: int) -> Expr:
        stride = dict(index.terms).get("lane", 0)
        base = IndexValue(_without_lane(index))
        if lanes == 1 or stride == 0:
            return base
        ramp: Expr = Apply("lane", (), "i64", lanes)
        if stride != 1:
            ramp = Apply("mul", (ramp, Literal(stride, "i64")), "i64", lanes)
        return Apply("add", (ramp, base), "i64", lanes)

    def _lookup(self, node: Node, at: Position, lanes: int) -> Expr:
        """One load where all lanes look at one place, else a load for each lane."""
        x, *indices = node.args
        dims, shape = node.integers("dims"), x.type.shape
        points = [broadcast_index(index.type.shape, at) for index in indices]
        below = list(broadcast_index(_without(shape, dims), at))
        if not any(_lanes_at(point, lanes) > 1 for point in points):
            for dim, index, point in zip(dims, indices, points, strict=True):
                below[dim] = self.address(index, point, shape[dim])
            return self.value(x, tuple(below), lanes)
        parts: list[Expr] = []
        for lane in range(lanes):
            own = [_at_lane(index, lane) for index in below]
            for dim, index, point in zip(dims, indices, points, strict=True):
                own[dim] = self.address(index, point, shape[dim], lanes, lane)
            parts.append(self.value(x, tuple(own), 1))
        return Apply("pack", tuple(parts), node.type.dtype, lanes)

    def address(
        self, index: Node, at: Position, extent: int, lanes: int = 1, lane: int = 0
    ) -> Index:
        """The index at a point, of one lane, as what loads and stores may use: kept within the
        extent whatever it is.
        """
        if extent <= 1:
            return Index()
        key = (index, at, _lanes_at(at, lanes), extent)
        kept = next((b.addresses[key] for b in self.blocks if key in b.addresses), None)
        if kept is None:
            home = self._home(at)
            found = self.value(index, at, lanes)
            found = apply_op("maximum", (found, Literal(0, "i64")), "i64")
            found = apply_op("minimum", (found, Literal(extent - 1, "i64")), "i64")
            whole = self._in_register(home, found)
            kept = [whole]
            if whole.lanes > 1:
                one = [Apply("lane_of", (whole,), "i64", 1, n) for n in range(whole.lanes)]
                kept = [self._in_register(home, value) for value in one]
            home.variables.update(register.name for register in kept)
            home.addresses[key] = kept
        return Index.of(kept[lane if len(kept) > 1 else 0].name)

    def _map(self, node: Node, at: Position, lanes: int) -> Expr:
        def argument(arg: Node) -> Expr:
            return self.value(arg, broadcast_index(arg.type.shape, at), lanes)

        fused = self._fused_multiply(node)
        if fused is not None:
            a, b, c, negate = fused
            product = argument(a)
            if negate:
                product = Apply("neg", (product,), dtype_of(product), lanes_of(product))
            return apply_op("fma", (product, argument(b), argument(c)), node.type.dtype)
        args = tuple(argument(arg) for arg in node.args)
        if node.op == "copy":
            return args[0]
        if node.op == "check_index":
            return self._checked(node, args[0], at)
        return apply_op(node.op, args, node.type.dtype)

    def _fused_multiply(self, node: Node) -> tuple[Node, Node, Node, bool] | None:
        """a * b + c, and c - a * b as -a * b + c, rounded once: not where that would keep a
        difference of equals from being 0.
        """
        if node.op not in ("add", "sub") or node.type.dtype not in ("f32", "f64"):
            return None

        def product(arg: Node) -> bool:
            return arg.op == "mul" and not self.in_memory(arg) and arg not in self.program.shared

        x, y = node.args
        if node.op == "sub" and x.op == y.op == "mul" and set(x.args) & set(y.args):
            return None
        if product(y):
            return y.args[0], y.args[1], x, node.op == "sub"
        if node.op == "add" and product(x):
            return x.args[0], x.args[1], y, False
        return None

    def _checked(self, node: Node, index: Expr, at: Position) -> Expr:
        """Stop the program unless every lane is in range; later sections rely on the forward's
        check.
        """
        if self.stage.section != node.section:
            return index
        lanes = lanes_of(index)
        size = Literal(node.integer("size"), "i64")
        ignore = Literal(node.integer("ignore"), "i64")
        low = apply_op("ge", (index, Literal(node.integer("low"), "i64")), "bool")
        high = apply_op("lt", (index, size), "bool")
        fine = apply_op(
            "or",
            (apply_op("and", (low, high), "bool"), apply_op("eq", (index, ignore), "bool")),
            "bool",
        )
        if lanes > 1:
            bad = apply_op("where", (fine, Literal(0, "i64"), Literal(1, "i64")), "i64")
            fine = apply_op("eq", (Apply("reduce_add", (bad,), "i64"), Literal(0, "i64")), "bool")
        self._home(at).statements.append(Check(fine, self.codes[node]))
        return index

    # ---- the stage's own values

    def write(
        self, roots: list[tuple[Node, str]], point: Callable[[Node], Position], lanes: int
    ) -> None:
        """Compute all, then store all: a root may overwrite what another reads."""
        values = [(self.value(node, point(node), lanes), node, buffer) for node, buffer in roots]
        for value, node, buffer in values:
            at = point(node)
            self.store(buffer, flat(node.type.shape, at), value, _lanes_at(at, lanes))


def _lanes_at(at: Position, lanes: int) -> int:
    return lanes if any(v == "lane" for index in at for v, _ in index.terms) else 1


def _at_lane(index: Index, lane: int) -> Index:
    return _without_lane(index) + dict(index.terms).get("lane", 0) * lane


def _without(shape: Shape, dims: Shape) -> Shape:
    return tuple(1 if d in dims else extent for d, extent in enumerate(shape))


def _without_lane(index: Index) -> Index:
    return Index(index.offset, tuple(t for t in index.terms if t[0] != "lane"))
