"""Checks a kernel before it is compiled: types, definitions, and that no access leaves its buffer.

`result_type` is the typing rule of every operation; the parser of `loops_text` uses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword

from batucada.ir.loops import (
    BINARY_OPS,
    COMPARE_OPS,
    REDUCE_OPS,
    TERNARY_OPS,
    UNARY_OPS,
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
from batucada.ir.loops_ranges import Ranges
from batucada.ir.types import FLOATS, DType

MAX_LANES = 64
_LOGICAL = frozenset({"and", "or", "xor"})
_BOOL_RESULT = COMPARE_OPS | {"isnan", "isinf"}
_ANY_NUMBER = frozenset("neg abs floor ceil round trunc sign isnan isinf".split())
_FLOAT_ONLY = (UNARY_OPS - _ANY_NUMBER - {"not"}) | {"atan2"}


class VerifyError(AssertionError):
    """A kernel that breaks the rules of the loop language: a defect of the compiler, not of its
    user.
    """


def result_type(op: str, args: Sequence[tuple[DType, int]]) -> tuple[DType, int]:
    """(dtype, lanes) of an elementwise operation or reduction; VerifyError when the arguments do
    not fit.
    """
    dtypes: list[DType] = [dtype for dtype, _ in args]
    lanes = _common_lanes(op, [count for _, count in args])
    if len(args) != _arity(op):
        raise VerifyError(f"{op} takes {_arity(op)} arguments, not {len(args)}")
    if op == "where":
        if dtypes[0] != "bool":
            raise VerifyError(f"where needs a bool condition, not {dtypes[0]}")
        dtypes = dtypes[1:]
    if len(set(dtypes)) > 1:
        raise VerifyError(f"{op} of different dtypes: {', '.join(dtypes)}")
    _check_domain(op, dtypes[0])
    if op in REDUCE_OPS:
        return dtypes[0], 1
    return ("bool" if op in _BOOL_RESULT else dtypes[0]), lanes


def _arity(op: str) -> int:
    for arity, ops in (
        (1, UNARY_OPS | REDUCE_OPS),
        (2, BINARY_OPS | COMPARE_OPS),
        (3, TERNARY_OPS),
    ):
        if op in ops:
            return arity
    raise VerifyError(f"unknown operation {op!r}")


def _common_lanes(op: str, counts: Sequence[int]) -> int:
    wide = {count for count in counts if count != 1}
    if len(wide) > 1:
        raise VerifyError(f"{op} of different lanes: {', '.join(map(str, counts))}")
    return wide.pop() if wide else 1


def _check_domain(op: str, dtype: DType) -> None:
    if op in _FLOAT_ONLY and dtype not in FLOATS:
        raise VerifyError(f"{op} of {dtype}: needs a float")
    if op in _LOGICAL and dtype in FLOATS:
        raise VerifyError(f"{op} of {dtype}: needs integers or bool")
    if op in ("shl", "shr") and (dtype in FLOATS or dtype == "bool"):
        raise VerifyError(f"{op} of {dtype}: needs integers")
    if op == "philox" and dtype != "i32":
        raise VerifyError(f"philox of {dtype}: needs i32")
    if op == "not" and dtype != "bool":
        raise VerifyError(f"not of {dtype}: needs bool")
    arithmetic = _ANY_NUMBER | {"sub", "div", "pow", "fmod", "remainder", "floor_div", "fma"}
    if dtype == "bool" and op in arithmetic:
        raise VerifyError(f"{op} of bool: cast it first")


def verify_kernel(kernel: Kernel) -> None:
    """VerifyError, naming kernel and statement, when `kernel` breaks a rule of the language."""
    _Verifier(kernel).check()


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.params: dict[str, Param] = {param.name: param for param in kernel.params}
        self.registers: dict[str, tuple[DType, int]] = {}
        self.ranges = Ranges()
        self.at: Stmt | None = None

    def check(self) -> None:
        names = [self.kernel.name, *(param.name for param in self.kernel.params)]
        for name in names:
            self._name(name)
        self._require(len(set(names)) == len(names), "two of its names are the same")
        self._require(all(param.size >= 0 for param in self.kernel.params), "a size is negative")
        self._block(self.kernel.body, outermost=len(self.kernel.body) == 1)

    def _fail(self, message: str) -> VerifyError:
        where = _label(self.at) if self.at is not None else "its parameters"
        return VerifyError(f"kernel {self.kernel.name}, {where}: {message}")

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise self._fail(message)

    def _name(self, name: str) -> None:
        if not name.isidentifier() or iskeyword(name):
            raise self._fail(f"{name!r} is no identifier")

    def _block(self, body: tuple[Stmt, ...], outermost: bool = False) -> None:
        for stmt in body:
            self.at = stmt
            self._statement(stmt, outermost)

    def _statement(self, stmt: Stmt, outermost: bool) -> None:
        match stmt:
            case For():
                self._for(stmt, outermost)
            case Set(register, value):
                self._set(register, value)
            case Store(buffer, index, value, lanes):
                self._store(self._access(buffer, index, lanes), lanes, *self._type(value))
            case Check(condition, code):
                self._require(self._type(condition)[0] == "bool", "the condition is no bool")
                self._require(code > 0, f"code {code} is not positive")
            case Prefetch(buffer, index):
                self._require(buffer in self.params, f"unknown buffer {buffer!r}")
                self._index(index)

    def _store(self, param: Param, lanes: int, dtype: DType, count: int) -> None:
        if not param.writes:
            raise self._fail(f"{param.name} may only be read")
        if dtype != param.dtype:
            raise self._fail(f"{dtype} stored in {param.dtype}")
        if count not in (1, lanes):
            raise self._fail(f"{count} lanes stored as {lanes}")

    def _for(self, loop: For, outermost: bool) -> None:
        self._require(
            outermost or not loop.parallel, "parallel, but not the one outermost statement"
        )
        self._require(loop.step > 0, f"step {loop.step}")
        taken = loop.variable in self.ranges or loop.variable in self.registers
        self._require(not taken and loop.variable not in self.params, "its variable is taken")
        self._name(loop.variable)
        known = dict(self.registers)
        if loop.limit is not None:
            self._require(not loop.parallel, "parallel, and with a limit")
            self._index(loop.limit)
        with self.ranges.open(loop):
            self._block(loop.body)
        if loop.start >= loop.stop or loop.limit is not None:
            self.registers = known

    def _set(self, register: Register, value: Expr) -> None:
        self._name(register.name)
        if register.name in self.ranges or register.name in self.params:
            raise self._fail(f"{register.name} is not a register's name here")
        declared = (register.dtype, register.lanes)
        before = self.registers.get(register.name, declared)
        if before != declared:
            raise self._fail(f"{register.name} was {before}, is now {declared}")
        found = self._type(value)
        if found != declared:
            raise self._fail(f"{register.name} is {declared}, its value {found}")
        self.registers[register.name] = declared

    def _access(self, buffer: str, index: Index, lanes: int) -> Param:
        if buffer not in self.params:
            raise self._fail(f"unknown buffer {buffer!r}")
        self._lanes(lanes)
        self._index(index)
        param = self.params[buffer]
        span = self.ranges.span(index)
        if span is not None and (span[0] < 0 or span[1] + lanes > param.size):
            what = f"elements {span[0]} to {span[1] + lanes - 1}"
            raise self._fail(f"{what} of {buffer}, which has {param.size}")
        return param

    def _lanes(self, lanes: int) -> None:
        if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
            raise self._fail(f"{lanes} lanes: need a power of two up to {MAX_LANES}")

    def _index(self, index: Index) -> None:
        for name, _ in index.terms:
            if name not in self.ranges and self.registers.get(name) != ("i64", 1):
                raise self._fail(f"{name!r} in an index is no loop variable and no i64 register")

    def _type(self, expr: Expr) -> tuple[DType, int]:
        match expr:
            case Register(name, dtype, lanes):
                found = self.registers.get(name)
                if found is None:
                    raise self._fail(f"register {name} is used before it is set")
                if found != (dtype, lanes):
                    raise self._fail(f"register {name} is {found}, read as {dtype, lanes}")
            case Load(buffer, index, dtype, lanes):
                param = self._access(buffer, index, lanes)
                if param.dtype != dtype:
                    raise self._fail(f"{buffer} is {param.dtype}, read as {dtype}")
            case IndexValue(index):
                self._index(index)
            case Apply():
                return self._apply(expr)
            case Literal():
                pass
        return dtype_of(expr), lanes_of(expr)

    def _apply(self, expr: Apply) -> tuple[DType, int]:
        args = [self._type(arg) for arg in expr.args]
        self._lanes(expr.lanes)
        declared = (expr.dtype, expr.lanes)
        try:
            found = lane_type(expr, args) or result_type(expr.op, args)
        except VerifyError as error:
            raise self._fail(str(error)) from None
        if found != declared:
            raise self._fail(f"{expr.op} gives {found}, is declared {declared}")
        return declared


def lane_type(expr: Apply, args: Sequence[tuple[DType, int]]) -> tuple[DType, int] | None:
    """(dtype, lanes) of the operations whose result depends on more than their arguments' types."""
    if expr.op == "pack":
        return _pack_type(args)
    arity = {"lane": 0, "splat": 1, "cast": 1, "lane_of": 1, "part": 1}.get(expr.op)
    if arity is None:
        return None
    if len(args) != arity:
        raise VerifyError(f"{expr.op} takes {arity} arguments, not {len(args)}")
    if expr.op == "lane":
        return "i64", expr.lanes
    dtype, lanes = args[0]
    if expr.op == "cast":
        return expr.dtype, lanes
    if expr.op == "splat":
        if lanes != 1:
            raise VerifyError(f"splat of {lanes} lanes")
        return dtype, expr.lanes
    count = expr.lanes if expr.op == "part" else 1
    if not 0 <= expr.arg <= lanes - count:
        raise VerifyError(f"lane {expr.arg + count - 1} of {lanes}")
    return dtype, count


def _pack_type(args: Sequence[tuple[DType, int]]) -> tuple[DType, int]:
    if len(set(args)) != 1 or args[0][1] != 1:
        raise VerifyError(f"pack takes scalars of one dtype, not {args}")
    return args[0][0], len(args)


def _label(stmt: Stmt) -> str:
    match stmt:
        case For(variable, start, stop, step):
            return f"for {variable} in range({start}, {stop}, {step})"
        case Set(register):
            return f"{register.name} = ..."
        case Store(buffer, index, _, lanes):
            return f"{buffer}[{index}, {lanes}] = ..."
        case Check(_, code):
            return f"check(..., {code})"
        case Prefetch(buffer, index):
            return f"prefetch({buffer}, {index})"
