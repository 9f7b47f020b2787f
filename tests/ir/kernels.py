"""Random kernels that obey the rules of the loop language, for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

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
)  # fmt: skip
from batucada.ir.loops_verify import lane_type, result_type
from batucada.ir.types import DType

SIZE = 64
VALUES: dict[str, DType] = {"f": "f32", "g": "f64", "n": "i32", "m": "i64", "t": "bool"}
FLOAT_OPS = (
    "add",
    "sub",
    "mul",
    "maximum",
    "minimum",
    "div",
    "neg",
    "abs",
    "floor",
    "sign",
    "sqrt",
    "fma",
)
INTEGER_OPS = (
    "add",
    "sub",
    "mul",
    "maximum",
    "and",
    "or",
    "xor",
    "floor_div",
    "remainder",
    "div",
    "neg",
)
BOOL_OPS = ("and", "or", "xor", "not", "add", "mul")
ARITY = {"fma": 3, **dict.fromkeys(("neg", "abs", "floor", "sign", "sqrt", "not"), 1)}
"""Operations whose results do not depend on who computes them."""


def applied(op: str, *args: Expr, dtype: DType = "i64", lanes: int = 1, arg: int = 0) -> Apply:
    types: list[tuple[DType, int]] = [(dtype_of(value), lanes_of(value)) for value in args]
    draft = Apply(op, args, dtype, lanes, arg)
    found = lane_type(draft, types) or result_type(op, types)
    return Apply(op, args, found[0], found[1], arg)


class _Writer:
    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw
        self.ranges: dict[str, range] = {}
        self.registers: list[Register] = []
        self.names = 0

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def index(self, lanes: int) -> Index:
        """Inside a buffer of SIZE for every value of the loops around."""
        found, room = Index(), SIZE - lanes
        for variable, values in self.ranges.items():
            factor = self.draw(st.integers(0, 3))
            if values and factor * values[-1] <= room:
                found, room = found + Index.of(variable) * factor, room - factor * values[-1]
        return found + self.draw(st.integers(0, room))

    def expr(self, dtype: DType, lanes: int, depth: int) -> Expr:
        choices = ["literal", "load", "register"]
        if depth:
            choices += ["op", "op", "op", "cast", "where", "lanes", "lanes"]
        match self.draw(st.sampled_from(choices)):
            case "load":
                buffer = next(name for name, kind in VALUES.items() if kind == dtype)
                return Load(buffer, self.index(lanes), dtype, lanes)
            case "register":
                known = [r for r in self.registers if (r.dtype, r.lanes) == (dtype, lanes)]
                return self.draw(st.sampled_from(known)) if known else self.literal(dtype, lanes)
            case "op":
                return self.operation(dtype, lanes, depth - 1)
            case "cast":
                source = self.draw(st.sampled_from(list(VALUES.values())))
                return applied("cast", self.expr(source, lanes, depth - 1), dtype=dtype)
            case "where":
                condition = self.comparison(lanes, depth - 1)
                return applied(
                    "where",
                    condition,
                    self.expr(dtype, lanes, 0),
                    self.expr(dtype, lanes, depth - 1),
                )
            case "lanes" if lanes == 1:
                return self.from_lanes(dtype, depth - 1)
            case "lanes":
                return self.into_lanes(dtype, lanes)
        return self.literal(dtype, lanes)

    def from_lanes(self, dtype: DType, depth: int) -> Expr:
        if dtype == "i64" and self.draw(st.booleans()):
            return IndexValue(self.index(1))
        vector, lane = self.expr(dtype, 4, depth), self.draw(st.integers(0, 3))
        ops = ["reduce_add", "reduce_max", "reduce_min", "reduce_mul"] if dtype != "bool" else []
        op = self.draw(st.sampled_from(["lane_of", "part", *ops]))
        return applied(op, vector, arg=0 if op in ops else lane)

    def into_lanes(self, dtype: DType, lanes: int) -> Expr:
        if dtype == "i64" and self.draw(st.booleans()):
            return applied("lane", lanes=lanes)
        parts = (self.expr(dtype, 1, 0) for _ in range(lanes))
        return applied("pack", *parts, dtype=dtype, lanes=lanes)

    def literal(self, dtype: DType, lanes: int) -> Expr:
        values = {"bool": st.booleans(), "i32": st.integers(-99, 99), "i64": st.integers(-99, 99)}
        halves = st.integers(-40, 40).map(lambda n: n / 2)
        literal = Literal(self.draw(values.get(dtype, halves)), dtype)
        return literal if lanes == 1 else applied("splat", literal, lanes=lanes)

    def operation(self, dtype: DType, lanes: int, depth: int) -> Expr:
        ops = FLOAT_OPS if dtype in ("f32", "f64") else BOOL_OPS if dtype == "bool" else INTEGER_OPS
        op = self.draw(st.sampled_from(ops))
        return applied(op, *(self.expr(dtype, lanes, depth) for _ in range(ARITY.get(op, 2))))

    def comparison(self, lanes: int, depth: int) -> Expr:
        op = self.draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]))
        kinds: tuple[DType, ...] = ("f32", "f64", "i32", "i64")
        kind = self.draw(st.sampled_from(kinds))
        return applied(op, self.expr(kind, lanes, depth), self.expr(kind, lanes, 0))

    def block(self, depth: int) -> tuple[Stmt, ...]:
        count = self.draw(st.integers(1, 3))
        return tuple(self.statement(depth) for _ in range(count))

    def statement(self, depth: int) -> Stmt:
        kind = self.draw(
            st.sampled_from(
                ["set", "store", "check", "prefetch", "for"] if depth else ["set", "store"]
            )
        )
        if kind == "for":
            return self.loop(depth - 1)
        if kind == "check":
            return Check(self.comparison(1, 1), self.draw(st.integers(1, 9)))
        if kind == "prefetch":
            return Prefetch("f", self.index(1))
        lanes = self.draw(st.sampled_from([1, 4, 8]))
        buffer, dtype = self.draw(st.sampled_from(list(VALUES.items())))
        value = self.expr(dtype, lanes, 2)
        if kind == "store":
            return Store(buffer, self.index(lanes), value, lanes)
        again = [r for r in self.registers if (r.dtype, r.lanes) == (dtype, lanes)]
        fresh = Register(self.name("r"), dtype, lanes)
        register = self.draw(st.sampled_from([fresh, *again]))
        self.registers.append(register)
        return Set(register, value)

    def loop(self, depth: int) -> For:
        name = self.name("i")
        start, count, step = (self.draw(st.integers(0, n)) for n in (3, 4, 3))
        step += 1
        values = range(start, start + count * step, step)
        known = list(self.registers)
        limit = self.index(1) if self.draw(st.booleans()) else None
        self.ranges[name] = values
        body = self.block(depth)
        del self.ranges[name]
        if not values or limit is not None:
            self.registers = known
        return For(name, start, start + count * step, step, body, limit=limit)


@st.composite
def kernels(draw: DrawFn) -> Kernel:
    """Kernels over one buffer of each of VALUES' dtypes, all of SIZE elements and writable."""
    params = tuple(Param(name, dtype, SIZE, True) for name, dtype in VALUES.items())
    return Kernel("random", params, _Writer(draw).block(2))


def buffers(seed: int) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-20, 20, SIZE)
    return {
        "f": (rng.normal(size=SIZE) * 4).astype(np.float32), "g": rng.normal(size=SIZE),
        "n": whole.astype(np.int32), "m": whole[::-1].astype(np.int64), "t": whole > 0,
    }  # fmt: skip
