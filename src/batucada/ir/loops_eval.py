"""Interprets kernels, one statement at a time, in numpy: slow, plain, and what compiled code is
held to.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batucada.ir import loops_scalar
from batucada.ir.loops import (
    REDUCE_OPS,
    Apply,
    Check,
    Expr,
    For,
    Index,
    IndexValue,
    Kernel,
    Literal,
    Load,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    dtype_of,
)  # fmt: skip
from batucada.ir.loops_scalar import NUMPY, Array
from batucada.ir.types import DType

_COMBINE = {
    "reduce_add": "add",
    "reduce_mul": "mul",
    "reduce_max": "maximum",
    "reduce_min": "minimum",
}


def run_kernel(kernel: Kernel, buffers: Mapping[str, Array]) -> int:
    """Run `kernel` on one-dimensional arrays, which it changes; 0, or the code of the check that
    failed.

    A buffer of bf16 is an array of its bits (uint16).  IndexError when an access leaves its buffer,
    ValueError when an array does not match its parameter.
    """
    for param in kernel.params:
        array = buffers[param.name]
        expected = np.dtype(np.uint16 if param.dtype == "bf16" else NUMPY[param.dtype])
        if array.shape != (param.size,) or array.dtype != expected:
            raise ValueError(
                f"{param.name} is {expected}[{param.size}], not {array.dtype}{list(array.shape)}"
            )
    return _Interpreter(kernel, buffers).block(kernel.body)


class _Interpreter:
    def __init__(self, kernel: Kernel, buffers: Mapping[str, Array]) -> None:
        self.buffers = buffers
        self.dtypes: dict[str, DType] = {param.name: param.dtype for param in kernel.params}
        self.registers: dict[str, Array] = {}
        self.variables: dict[str, int] = {}

    def block(self, body: tuple[Stmt, ...]) -> int:
        for stmt in body:
            code = self._statement(stmt)
            if code:
                return code
        return 0

    def _statement(self, stmt: Stmt) -> int:
        match stmt:
            case For():
                return self._for(stmt)
            case Set(register, value):
                self.registers[register.name] = self._value(value).copy()
            case Store(buffer, index, value, lanes):
                start = self._place(buffer, index, lanes)
                stored = self._value(value)
                if self.dtypes[buffer] == "bf16":
                    stored = loops_scalar.bf16_bits(stored)
                self.buffers[buffer][start : start + lanes] = stored
            case Check(condition, code):
                return 0 if self._value(condition).all() else code
            case Prefetch():
                pass
        return 0

    def _for(self, loop: For) -> int:
        stop = loop.stop if loop.limit is None else min(loop.stop, self._index(loop.limit))
        for value in range(loop.start, stop, loop.step):
            self.variables[loop.variable] = value
            code = self.block(loop.body)
            if code:
                return code
        return 0

    def _index(self, index: Index) -> int:
        return index.offset + sum(factor * self._integer(name) for name, factor in index.terms)

    def _integer(self, name: str) -> int:
        return self.variables[name] if name in self.variables else int(self.registers[name][0])

    def _place(self, buffer: str, index: Index, lanes: int) -> int:
        start, size = self._index(index), len(self.buffers[buffer])
        if start < 0 or start + lanes > size:
            raise IndexError(
                f"elements {start} to {start + lanes - 1} of {buffer}, which has {size}"
            )
        return start

    def _value(self, expr: Expr) -> Array:
        match expr:
            case Literal(value, dtype):
                return _constant(value, dtype)
            case Register(name):
                return self.registers[name]
            case Load(buffer, index, _, lanes):
                start = self._place(buffer, index, lanes)
                found = self.buffers[buffer][start : start + lanes]
                return loops_scalar.bf16_from_bits(found) if expr.dtype == "bf16" else found
            case IndexValue(index):
                return np.array([self._index(index)], np.int64)
            case Apply():
                return self._apply(expr)

    def _apply(self, expr: Apply) -> Array:
        if expr.op == "lane":
            return np.arange(expr.lanes, dtype=np.int64)
        args = [self._value(arg) for arg in expr.args]
        dtype = dtype_of(expr.args[-1])
        if expr.op == "pack":
            return np.concatenate(args)
        if expr.op == "splat":
            return np.repeat(args[0], expr.lanes)
        if expr.op in ("lane_of", "part"):
            return args[0][expr.arg : expr.arg + expr.lanes]
        if expr.op == "cast":
            return loops_scalar.cast(args[0], dtype, expr.dtype)
        if expr.op in REDUCE_OPS:
            return loops_scalar.reduce(_COMBINE[expr.op], dtype, args[0])
        return loops_scalar.apply(expr.op, dtype, args)


def _constant(value: float, dtype: DType) -> Array:
    with np.errstate(over="ignore"):
        found = np.array([value]).astype(NUMPY[dtype])
    return loops_scalar.round_to_bf16(found) if dtype == "bf16" else found
