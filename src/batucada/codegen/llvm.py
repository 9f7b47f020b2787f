"""Kernels of the loop language and schedules over them -> the text of one LLVM module.

Each kernel becomes `i32 @name(ptr p0, ..., i64 begin, i64 end)`: buffers in the order of its
parameters; a parallel loop runs from `begin` to `end` (values of its variable, whole steps from its
start), which other kernels ignore.  It returns 0, the code of the first `check` that failed, or, in
a checked build, -1 - n when the access described by `sites[n]` would have left its buffer.  What
the loops' ranges prove is not tested again.

Buffers of one call must not overlap unless nobody writes them.  No fast-math flag is ever used, so
the order of operations in the kernel is the order of rounding: the same inputs give the same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batucada.codegen import scalar
from batucada.codegen.addresses import Addresses
from batucada.codegen.builder import (
    ELEMENTARY,
    Builder,
    ModuleText,
    Value,
    constant,
    constant_vector,
    llvm_type,
)
from batucada.codegen.casts import cast
from batucada.codegen.pool import pool_ir
from batucada.codegen.schedule import Loop, Schedule, schedules_ir
from batucada.codegen.target import Target
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
    Param,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
)  # fmt: skip
from batucada.ir.loops_ranges import Ranges
from batucada.ir.types import ITEM_BYTES, DType


@dataclass(frozen=True, slots=True)
class ModuleIR:
    """An LLVM module's text, and the accesses that its checked functions may report."""

    text: str
    sites: tuple[str, ...] = ()


def emit_module(
    kernels: Sequence[Kernel],
    target: Target,
    schedules: Sequence[Schedule | Loop] = (),
    checked: bool = False,
) -> ModuleIR:
    """One module with every kernel, every schedule and the thread pool they use."""
    module = ModuleText(target)
    sites: list[str] | None = [] if checked else None
    for kernel in kernels:
        module.functions[kernel.name] = _KernelWriter(module, kernel, sites).text()
    if schedules:
        module.functions["batucada_pool"] = pool_ir(target)
        module.functions["batucada_run"] = schedules_ir(schedules)
    return ModuleIR(module.text(), tuple(sites or ()))


class _KernelWriter:
    """Writes one kernel.  A register that is set once is the value itself: loops are tested at
    their end, so its setting dominates every later use.  The others live in allocas, which LLVM's
    first pass turns into values.
    """

    def __init__(self, module: ModuleText, kernel: Kernel, sites: list[str] | None) -> None:
        self.b = Builder(module)
        self.kernel = kernel
        self.sites = sites
        self.params: dict[str, tuple[str, Param]] = {
            param.name: (f"%p{position}", param) for position, param in enumerate(kernel.params)
        }
        self.addresses = Addresses(self.b, self._counter)
        self.times = Counter(_settings(kernel.body))
        self.values: dict[str, Value] = {}
        self.slots: dict[str, Register] = {}
        self.ranges = Ranges()

    def text(self) -> str:
        self._block(self.kernel.body)
        pointers = [f"ptr noalias nocapture %p{n}" for n in range(len(self.kernel.params))]
        arguments = ", ".join([*pointers, "i64 %begin", "i64 %end"])
        allocas = [
            f"  {_slot(register)} = alloca {_memory_type(register.dtype, register.lanes)}"
            for register in self.slots.values()
        ]
        elementary = any(f"@{scalar.FUNCTIONS}" in line for line in self.b.lines)
        attributes = ELEMENTARY if elementary else "#2"
        head = f"define i32 @{self.kernel.name}({arguments}) {attributes} {{"
        return "\n".join([head, "entry:", *allocas, *self.b.lines, "  ret i32 0", "}\n"])

    def _block(self, body: tuple[Stmt, ...]) -> None:
        for stmt in body:
            self._statement(stmt)

    def _statement(self, stmt: Stmt) -> None:
        match stmt:
            case For():
                self._for(stmt)
            case Set(register, value):
                self._set(register, self._value(value, register.lanes))
            case Store(buffer, index, value, lanes):
                place = self._address(buffer, index, lanes)
                self._write(place, self._value(value, lanes), align=True)
            case Check(condition, code):
                passed = scalar.reduce(self.b, "and", self._value(condition))
                self._leave_unless(passed, code)
            case Prefetch(buffer, index):
                self._prefetch(buffer, index)

    def _set(self, register: Register, value: Value) -> None:
        if self.times[register.name] == 1:
            self.values[register.name] = value
            return
        self.slots.setdefault(register.name, register)
        self._write(_slot(register), value)

    def _register(self, register: Register) -> Value:
        if register.name in self.values:
            return self.values[register.name]
        return self._read(_slot(register), register.dtype, register.lanes)

    def _counter(self, name: str) -> Value:
        return self._register(Register(name, "i64"))

    def _for(self, loop: For) -> None:
        """Tested at its end: without a limit a serial loop's trip count is known not to be zero."""
        if loop.start >= loop.stop:
            return
        b, name = self.b, self.b.name("loop")
        start, stop = ("%begin", "%end") if loop.parallel else (str(loop.start), str(loop.stop))
        if loop.limit is not None:
            limit = self.addresses.index(loop.limit)
            below = b.compare("icmp slt", limit, loop.stop)
            stop = b.where(below, limit, constant(loop.stop, "i64")).text
        if loop.parallel or loop.limit is not None:
            some = b.emit(f"icmp slt i64 {start}, {stop}", "bool")
            b.line(f"br {some}, label %{name}.enter, label %{name}.exit")
        else:
            b.line(f"br label %{name}.enter")
        b.label(f"{name}.enter")
        b.line(f"br label %{name}")
        b.label(name)
        b.line(f"%{name}.i = phi i64 [ {start}, %{name}.enter ], [ %{name}.next, %{name}.latch ]")
        outside, b.lines = b.lines, []
        self.addresses.open(loop.variable, f"%{name}.i")
        with self.ranges.open(loop):
            self._block(loop.body)
        b.lines = [*outside, *self.addresses.close(), *b.lines]
        b.line(f"br label %{name}.latch")
        b.label(f"{name}.latch")
        b.line(f"%{name}.next = add nsw i64 %{name}.i, {loop.step}")
        more = b.emit(f"icmp slt i64 %{name}.next, {stop}", "bool")
        b.line(f"br {more}, label %{name}, label %{name}.exit")
        b.label(f"{name}.exit")

    def _value(self, expr: Expr, lanes: int = 1) -> Value:
        """The value of `expr`, spread over `lanes` when it is a scalar."""
        value = self._expression(expr)
        return self.addresses.splat(value, lanes) if value.lanes == 1 else value

    def _expression(self, expr: Expr) -> Value:
        match expr:
            case Literal(value, dtype):
                return constant(value, dtype)
            case Register():
                return self._register(expr)
            case Load(buffer, index, dtype, lanes):
                return self._read(self._address(buffer, index, lanes), dtype, lanes, align=True)
            case IndexValue(index):
                return self.addresses.index(index)
            case Apply():
                return self._apply(expr)

    def _apply(self, expr: Apply) -> Value:
        if expr.op == "lane":
            return constant_vector([str(lane) for lane in range(expr.lanes)], "i64")
        if expr.op == "splat":
            return self._value(expr.args[0], expr.lanes)
        if expr.op == "cast":
            return cast(self.b, self._value(expr.args[0], expr.lanes), expr.dtype)
        if expr.op == "lane_of":
            return self.b.extract(self._expression(expr.args[0]), expr.arg)
        if expr.op == "part":
            return self.b.part(self._expression(expr.args[0]), expr.arg, expr.lanes)
        if expr.op == "pack":
            return self.b.pack([self._expression(arg) for arg in expr.args])
        if expr.op in REDUCE_OPS:
            return scalar.reduce(self.b, _COMBINE[expr.op], self._expression(expr.args[0]))
        args = [self._value(arg, expr.lanes) for arg in expr.args]
        return scalar.apply(self.b, expr.op, args)

    def _address(self, buffer: str, index: Index, lanes: int) -> str:
        pointer, param = self.params[buffer]
        span = self.ranges.span(index)
        proved = span is not None and span[0] >= 0 and span[1] + lanes <= param.size
        if self.sites is not None and not proved:
            self._check_access(param, index, lanes)
        return self.addresses.pointer(pointer, _memory_type(param.dtype), index)

    def _check_access(self, param: Param, index: Index, lanes: int) -> None:
        assert self.sites is not None
        terms = "".join(f" + {factor}*{name}" for name, factor in index.terms)
        what = f"{self.kernel.name}: {param.name}[{index.offset}{terms}, {lanes}]"
        self.sites.append(f"{what} of {param.dtype}[{param.size}]")
        element = self.addresses.index(index)
        inside = self.b.compare("icmp ult", element, max(0, param.size - lanes + 1))
        self._leave_unless(inside, -len(self.sites))

    def _leave_unless(self, condition: Value, code: int) -> None:
        name = self.b.name("check")
        self.b.line(f"br {condition}, label %{name}.ok, label %{name}.fail")
        self.b.label(f"{name}.fail")
        self.b.line(f"ret i32 {code}")
        self.b.label(f"{name}.ok")

    def _prefetch(self, buffer: str, index: Index) -> None:
        """Not checked: a prefetch never faults, and loops prefetch past the end of a row."""
        pointer, param = self.params[buffer]
        place = self.addresses.pointer(pointer, _memory_type(param.dtype), index)
        self.b.module.declarations["llvm.prefetch.p0"] = (
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        )
        self.b.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")

    def _read(self, place: str, dtype: DType, lanes: int = 1, align: bool = False) -> Value:
        kind = _memory_type(dtype, lanes)
        name = f"%{self.b.name()}"
        self.b.line(f"{name} = load {kind}, ptr {place}{_alignment(dtype, align)}")
        if dtype != "bool":
            return Value(name, dtype, lanes)
        return self.b.compare("icmp ne", Value(name, "u8", lanes), 0)

    def _write(self, place: str, value: Value, align: bool = False) -> None:
        dtype = value.dtype
        stored = cast(self.b, value, "u8") if dtype == "bool" else value
        self.b.line(f"store {stored}, ptr {place}{_alignment(dtype, align)}")


_COMBINE = {
    "reduce_add": "add",
    "reduce_mul": "mul",
    "reduce_max": "maximum",
    "reduce_min": "minimum",
}


def _settings(body: tuple[Stmt, ...]) -> Iterator[str]:
    """The name of a register for each statement that sets it."""
    for stmt in body:
        if isinstance(stmt, Set):
            yield stmt.register.name
        elif isinstance(stmt, For):
            yield from _settings(stmt.body)


def _slot(register: Register) -> str:
    return f"%r.{register.name}"


def _memory_type(dtype: DType, lanes: int = 1) -> str:
    return llvm_type("u8" if dtype == "bool" else dtype, lanes)


def _alignment(dtype: DType, align: bool) -> str:
    """Buffers are aligned to their elements only; allocas as LLVM likes."""
    return f", align {ITEM_BYTES[dtype]}" if align else ""
