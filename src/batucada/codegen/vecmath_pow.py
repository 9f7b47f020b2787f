"""pow in f32 for any number of lanes: through logarithm and exponential in f64, rounded once at the
end.
"""

from __future__ import annotations

import math

from batucada.codegen.builder import Builder, Value, constant
from batucada.codegen.vecmath import polynomial

_LOG_TERMS = tuple(2 / (2 * k + 1) for k in range(9))
"""2 atanh(s) / s in powers of s^2; |s| <= 0.172 where it is used, so what is left out is below
2^-46.
"""
_EXP_TERMS = tuple(1 / math.factorial(k) for k in range(12))
"""exp(r) for |r| <= ln(2)/2: what is left out is below 2^-46."""
_ROUNDER = 1.5 * 2.0**52
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


def power(b: Builder, x: Value, y: Value) -> Value:
    """C's pow with all of its special cases."""
    base, exponent = b.convert("fpext", x, "f64"), b.convert("fpext", y, "f64")
    logarithm = _log2(b, b.intrinsic("fabs", base))
    product = b.op("fmul", exponent, logarithm)
    one = b.compare("fcmp oeq", logarithm, 0.0)  # |x| is 1: also when y is infinite
    result = b.convert("fptrunc", _exp2(b, b.where(one, 0.0, product)), "f32")
    return _edges(b, x, y, _signed(b, x, y, result))


def _log2(b: Builder, x: Value) -> Value:
    """For x >= 0; x came from f32, so it is no subnormal."""
    bits = b.bits(x, "i64")
    shift = b.op("and", b.op("sub", bits, _SQRT_HALF_BITS), -(1 << 52))
    m = b.bits(b.op("sub", bits, shift), "f64")
    s = b.op("fdiv", b.op("fsub", m, 1.0), b.op("fadd", m, 1.0))
    natural = b.op("fmul", s, polynomial(b, b.op("fmul", s, s), _LOG_TERMS))
    whole = _small_integer(b, b.op("ashr", shift, 52))
    result = b.fma(natural, 1 / math.log(2), whole)
    result = b.where(b.compare("fcmp ueq", x, math.inf), x, result)
    return b.where(b.compare("fcmp oeq", x, 0.0), -math.inf, result)


def _small_integer(b: Builder, value: Value) -> Value:
    """An i64 below 2^51 in size as f64, by the rounder's bits: AVX2 has no such conversion."""
    bits = b.op("add", value, 0x4338000000000000)
    return b.op("fsub", b.bits(bits, "f64"), _ROUNDER)


def _exp2(b: Builder, x: Value) -> Value:
    x = b.where(b.compare("fcmp ogt", x, 200.0), 200.0, x)
    x = b.where(b.compare("fcmp olt", x, -200.0), -200.0, x)
    shifted = b.op("fadd", x, _ROUNDER)
    r = b.op("fmul", b.op("fsub", x, b.op("fsub", shifted, _ROUNDER)), math.log(2))
    exponent = b.op("shl", b.bits(shifted, "i64"), 52)
    bits = b.op("add", b.bits(polynomial(b, r, _EXP_TERMS), "i64"), exponent)
    return b.where(b.compare("fcmp uno", x, x), x, b.bits(bits, "f64"))


def _signed(b: Builder, x: Value, y: Value, result: Value) -> Value:
    """Negative where x is and y is an odd integer (1 bit left after halving)."""
    half = b.op("fmul", y, 0.5)
    odd = b.op("and", _is_whole(b, y), b.op("xor", _is_whole(b, half), 1))
    signed = b.intrinsic("copysign", result, x)
    return b.where(odd, signed, result)


def _is_whole(b: Builder, value: Value) -> Value:
    return b.compare("fcmp oeq", b.intrinsic("trunc", value), value)


def _edges(b: Builder, x: Value, y: Value, result: Value) -> Value:
    negative = b.op("and", b.compare("fcmp olt", x, 0.0), b.compare("fcmp one", x, -math.inf))
    undefined = b.op("and", negative, b.op("xor", _is_whole(b, y), 1))
    result = b.where(undefined, math.nan, result)
    result = b.where(b.compare("fcmp uno", x, y), math.nan, result)
    certain = b.op("or", b.compare("fcmp oeq", x, 1.0), b.compare("fcmp oeq", y, 0.0))
    return b.where(certain, constant(1.0, "f32", x.lanes), result)
