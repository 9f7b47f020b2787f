"""Writes LLVM IR as text: typed values, one instruction a line.  Knows types, not operations of
kernels.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from batucada.codegen.target import Target
from batucada.ir.types import FLOATS, DType

LLVM_TYPES: dict[DType, str] = {
    "f64": "double", "f32": "float", "bf16": "i16", "f16": "half",
    "i64": "i64", "i32": "i32", "i16": "i16", "i8": "i8", "u8": "i8", "bool": "i1",
}  # fmt: skip
"""Types of values in registers.  bf16 is kept as its bits; a bool is a byte in memory."""

BITS: dict[DType, int] = {
    "f64": 64, "f32": 32, "bf16": 16, "f16": 16, "i64": 64, "i32": 32, "i16": 16, "i8": 8, "u8": 8,
    "bool": 1,
}  # fmt: skip

ELEMENTARY = "#3"
"""The attributes of kernels that compute elementary functions."""

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class Value:
    """A value in IR: its spelling (%name or constant), dtype and number of lanes."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return llvm_type(self.dtype, self.lanes)

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def llvm_type(dtype: DType, lanes: int = 1) -> str:
    element = LLVM_TYPES[dtype]
    return element if lanes == 1 else f"<{lanes} x {element}>"


def constant(value: Number, dtype: DType, lanes: int = 1) -> Value:
    """`value`, rounded to `dtype`, in every lane."""
    text = _spelling(value, dtype)
    if lanes == 1:
        return Value(text, dtype)
    return constant_vector([text] * lanes, dtype)


def constant_vector(texts: list[str], dtype: DType) -> Value:
    element = LLVM_TYPES[dtype]
    return Value(f"<{', '.join(f'{element} {text}' for text in texts)}>", dtype, len(texts))


def _spelling(value: Number, dtype: DType) -> str:
    if dtype == "bool":
        return "true" if value else "false"
    if dtype not in FLOATS:
        return str(int(value))
    if dtype == "f64":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if dtype == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    single = _round_to_single(float(value))
    if dtype == "bf16":
        return str(_bf16_bits(single))
    return f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"


def _round_to_single(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _bf16_bits(single: float) -> int:
    """Nearest bf16, ties to even; every NaN becomes the quiet one."""
    if math.isnan(single):
        return 0x7FC0
    bits = struct.unpack("<I", struct.pack("<f", single))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


@dataclass
class ModuleText:
    """A module being written: what its functions share."""

    target: Target
    declarations: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        head = f'target triple = "{self.target.triple}"\n'
        attributes = (
            "attributes #0 = { nounwind }\nattributes #1 = { nounwind alwaysinline }\n"
            "attributes #2 = { nounwind noinline }\n"
            f"attributes {ELEMENTARY} = {{ nounwind noinline }}\n"
        )
        parts = [head, *self.functions.values(), *self.declarations.values(), attributes]
        return "\n".join(parts)


class Builder:
    """Appends instructions to the body of one function."""

    def __init__(self, module: ModuleText) -> None:
        self.module = module
        self.target = module.target
        self.lines: list[str] = []
        self._names = 0

    def name(self, stem: str = "v") -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def emit(self, instruction: str, dtype: DType, lanes: int = 1) -> Value:
        name = f"%{self.name()}"
        self.line(f"{name} = {instruction}")
        return Value(name, dtype, lanes)

    def op(self, opcode: str, left: Value, right: Value | Number) -> Value:
        """An instruction on two values of one type, with a result of that type."""
        other = self.like(right, left)
        return self.emit(f"{opcode} {left}, {other.text}", left.dtype, left.lanes)

    def like(self, value: Value | Number, model: Value) -> Value:
        """A number as a constant of the model's type."""
        return value if isinstance(value, Value) else constant(value, model.dtype, model.lanes)

    def compare(self, opcode: str, left: Value, right: Value | Number) -> Value:
        """`opcode` such as `fcmp olt` or `icmp eq`."""
        other = self.like(right, left)
        return self.emit(f"{opcode} {left}, {other.text}", "bool", left.lanes)

    def convert(self, opcode: str, value: Value, dtype: DType) -> Value:
        to = llvm_type(dtype, value.lanes)
        return self.emit(f"{opcode} {value} to {to}", dtype, value.lanes)

    def bits(self, value: Value, dtype: DType) -> Value:
        """The same bits seen as another dtype of that width."""
        if LLVM_TYPES[value.dtype] == LLVM_TYPES[dtype]:
            return Value(value.text, dtype, value.lanes)
        return self.convert("bitcast", value, dtype)

    def where(self, condition: Value, yes: Value | Number, no: Value | Number) -> Value:
        model = yes if isinstance(yes, Value) else no
        assert isinstance(model, Value)
        first, second = self.like(yes, model), self.like(no, model)
        return self.emit(f"select {condition}, {first}, {second}", model.dtype, model.lanes)

    def intrinsic(self, name: str, *args: Value, dtype: DType | None = None) -> Value:
        """llvm.`name` overloaded on the first argument (and on the result if `dtype` is given)."""
        first = args[0]
        suffixes = [_mangled(first.dtype, first.lanes)]
        if dtype is not None:
            suffixes.insert(0, _mangled(dtype, first.lanes))
        return self.call(".".join(["llvm", name, *suffixes]), args, dtype or first.dtype)

    def call(self, function: str, args: tuple[Value, ...], dtype: DType) -> Value:
        """Call a function that works on values of as many lanes as its result; declared when
        unknown.
        """
        lanes = args[0].lanes
        result = llvm_type(dtype, lanes)
        if function not in self.module.functions:
            types = ", ".join(arg.type for arg in args)
            declaration = f"declare {result} @{function}({types}) #0"
            self.module.declarations.setdefault(function, declaration)
        return self.emit(f"call {result} @{function}({', '.join(map(str, args))})", dtype, lanes)

    def extract(self, value: Value, lane: int) -> Value:
        if value.lanes == 1:
            return value
        return self.emit(f"extractelement {value}, i32 {lane}", value.dtype)

    def splat(self, value: Value, lanes: int) -> Value:
        if value.lanes == lanes:
            return value
        if not value.text.startswith("%"):
            return constant_vector([value.text] * lanes, value.dtype)
        one = Value(f"%{self.name()}", value.dtype, lanes)
        self.line(f"{one.text} = insertelement {one.type} poison, {value}, i32 0")
        mask = f"<{lanes} x i32> zeroinitializer"
        return self.emit(f"shufflevector {one}, {one.type} poison, {mask}", value.dtype, lanes)

    def pack(self, scalars: list[Value]) -> Value:
        """A vector of these lanes."""
        dtype, lanes = scalars[0].dtype, len(scalars)
        vector = Value("poison", dtype, lanes)
        for lane, scalar in enumerate(scalars):
            vector = self.emit(f"insertelement {vector}, {scalar}, i64 {lane}", dtype, lanes)
        return vector

    def half(self, value: Value, upper: bool) -> Value:
        """The lower or the upper half of the lanes."""
        count = value.lanes // 2
        return self.part(value, count if upper else 0, count)

    def part(self, value: Value, first: int, count: int) -> Value:
        """`count` lanes from `first` on."""
        if count == 1:
            return self.extract(value, first)
        lanes = ", ".join(f"i32 {first + lane}" for lane in range(count))
        shuffle = f"shufflevector {value}, {value.type} poison, <{count} x i32> <{lanes}>"
        return self.emit(shuffle, value.dtype, count)

    def each_lane(self, function: str, args: tuple[Value, ...]) -> Value:
        """A scalar library function on every lane."""
        lanes, dtype = args[0].lanes, args[0].dtype
        if lanes == 1:
            return self.call(function, args, dtype)
        result = Value("poison", dtype, lanes)
        for lane in range(lanes):
            one = self.call(function, tuple(self.extract(arg, lane) for arg in args), dtype)
            result = self.emit(f"insertelement {result}, {one}, i32 {lane}", dtype, lanes)
        return result

    def fma(self, left: Value, right: Value | Number, addend: Value | Number) -> Value:
        """left * right + addend, rounded once where the processor can."""
        right, addend = self.like(right, left), self.like(addend, left)
        if self.target.has_fma:
            return self.intrinsic("fma", left, right, addend)
        return self.op("fadd", self.op("fmul", left, right), addend)


def _mangled(dtype: DType, lanes: int) -> str:
    element = {"f64": "f64", "f32": "f32", "f16": "f16", "bool": "i1"}.get(dtype, f"i{BITS[dtype]}")
    return element if lanes == 1 else f"v{lanes}{element}"
