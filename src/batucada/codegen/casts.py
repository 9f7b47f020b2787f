"""Conversions between dtypes, as LLVM IR.  Total: no input is undefined behaviour.

Floats become integers by truncation and saturate (NaN gives 0); bf16 and f16 go through f32; bf16
is converted by integer arithmetic, so that every processor gives the same bits.
"""

from __future__ import annotations

from batucada.codegen.builder import BITS, Builder, Value, constant
from batucada.ir.types import FLOATS, DType


def cast(b: Builder, value: Value, dtype: DType) -> Value:
    """`value` as `dtype`."""
    if value.dtype == dtype:
        return value
    if value.dtype in ("bf16", "f16"):
        return cast(b, _to_single(b, value), dtype)
    if dtype in ("bf16", "f16"):
        single = cast(b, value, "f32")
        return _single_to_bf16(b, single) if dtype == "bf16" else _single_to_f16(b, single)
    if dtype == "bool":
        return b.compare("fcmp une" if value.dtype in FLOATS else "icmp ne", value, 0)
    if value.dtype in FLOATS:
        return _from_float(b, value, dtype)
    unsigned = value.dtype in ("bool", "u8")
    if dtype in FLOATS:
        return b.convert("uitofp" if unsigned else "sitofp", value, dtype)
    return _between_integers(b, value, dtype, unsigned)


def _from_float(b: Builder, value: Value, dtype: DType) -> Value:
    if dtype in FLOATS:
        return b.convert("fpext" if dtype == "f64" else "fptrunc", value, dtype)
    return b.intrinsic("fptoui.sat" if dtype == "u8" else "fptosi.sat", value, dtype=dtype)


def _between_integers(b: Builder, value: Value, dtype: DType, unsigned: bool) -> Value:
    if BITS[dtype] == BITS[value.dtype]:
        return b.bits(value, dtype)
    if BITS[dtype] < BITS[value.dtype]:
        return b.convert("trunc", value, dtype)
    return b.convert("zext" if unsigned else "sext", value, dtype)


def _to_single(b: Builder, value: Value) -> Value:
    if value.dtype == "bf16":
        wide = b.convert("zext", value, "i32")
        return b.bits(b.op("shl", wide, 16), "f32")
    if b.target.has_half_conversion:
        return b.convert("fpext", value, "f32")
    return _f16_to_single(b, value)


def _single_to_bf16(b: Builder, value: Value) -> Value:
    """Nearest, ties to even; a NaN becomes the quiet one."""
    bits = b.bits(value, "i32")
    odd = b.op("and", b.op("lshr", bits, 16), 1)
    rounded = b.op("lshr", b.op("add", b.op("add", bits, 0x7FFF), odd), 16)
    kept = b.where(b.compare("fcmp uno", value, value), 0x7FC0, rounded)
    return b.bits(b.convert("trunc", kept, "i16"), "bf16")


def _single_to_f16(b: Builder, value: Value) -> Value:
    if b.target.has_half_conversion:
        return b.convert("fptrunc", value, "f16")
    return _single_to_f16_bits(b, value)


def _f16_to_single(b: Builder, value: Value) -> Value:
    """Shift the fraction into place; a product with 2^112 moves the exponent, subnormals too."""
    bits = b.convert("zext", b.bits(value, "i16"), "i32")
    magnitude = b.op("shl", b.op("and", bits, 0x7FFF), 13)
    scaled = b.op("fmul", b.bits(magnitude, "f32"), 2.0**112)
    special = b.bits(b.op("or", magnitude, 0x7F800000), "f32")  # infinities and NaN
    result = b.where(b.compare("icmp uge", magnitude, 0x0F800000), special, scaled)
    sign = b.op("shl", b.op("and", bits, 0x8000), 16)
    return b.bits(b.op("or", b.bits(result, "i32"), sign), "f32")


def _single_to_f16_bits(b: Builder, value: Value) -> Value:
    """Nearest, ties to even, in integers; where the result is subnormal, a float sum does the
    rounding.
    """
    bits = b.bits(value, "i32")
    sign = b.op("and", b.op("lshr", bits, 16), 0x8000)
    magnitude = b.op("and", bits, 0x7FFFFFFF)
    odd = b.op("and", b.op("lshr", magnitude, 13), 1)
    biased = b.op("add", b.op("add", magnitude, 0xFFF - (112 << 23)), odd)
    normal = b.op("lshr", biased, 13)
    grid = constant(0.5, "f32", value.lanes)  # its last place is the subnormals' step, 2^-24
    moved = b.bits(b.op("fadd", b.bits(magnitude, "f32"), grid), "i32")
    small = b.op("sub", moved, 0x3F000000)
    result = b.where(b.compare("icmp ult", magnitude, 113 << 23), small, normal)
    infinite = b.compare("icmp uge", magnitude, 0x477FF000)  # 65520 and above
    result = b.where(infinite, 0x7C00, result)
    result = b.where(b.compare("icmp ugt", magnitude, 0x7F800000), 0x7E00, result)
    narrow = b.convert("trunc", b.op("or", result, sign), "i16")
    return b.bits(narrow, "f16")
