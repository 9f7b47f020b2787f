"""Elementary functions in f32 for any number of lanes, as LLVM IR: no branches, no tables, no
calls.

Each is right to 1.5 units in the last place on the whole range, passes NaN on, and gives the
same bits with 1 lane as with 16.  The polynomials are minimax fits (Lawson's iteration,
coefficients rounded to f32 from the lowest up); the error named beside each is its own, relative to
the function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from batucada.codegen.builder import Builder, Value, constant

# exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2, 2^-28
_EXP = (0.49999994, 0.166665167, 0.0416682847, 0.00836925022, 0.00138204684)
# log(1+f) = f - f^2/2 + f^3 p(f) for |f| <= 1/3, 2^-27.7
_LOG = (
    0.333332151, -0.249998048, 0.200104296, -0.166802481,
    0.140056685, -0.121868856, 0.139849454, -0.128822491,
)  # fmt: skip
# tanh(x) = x + x^3 p(x^2) for |x| <= 0.625, 2^-27.7
_TANH = (-0.333332807, 0.133314058, -0.0537365153, 0.0206281673, -0.0056922962)
# erf(x) = x + x p(x^2) for |x| <= 0.93, 2^-25.8
_ERF_SMALL = (
    0.128379151, -0.376124889, 0.11281731, -0.0267629642, 0.00498734741, -0.000595954945,
)  # fmt: skip
# log(erfc(x)) = x p(x) - x for 0.92 <= x <= 3.93, 2^-28 of erf
_ERF_LARGE = (
    -0.128514364, -0.635718286, -0.105261914, 0.0228900388, -0.00321499095, 0.000213991167,
)  # fmt: skip

_LOG2_E = 1 / math.log(2)
_LN2_HIGH = 355 / 512  # ln 2 to 9 bits: its product with an exponent is exact
_LN2_LOW = math.log(2) - _LN2_HIGH
_BIAS = 127  # of an exponent's bits
_ROUNDER = 1.5 * 2.0**23 + 2 * _BIAS  # adding it rounds to an integer n; the low bits are n + 254


def polynomial(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """sum(coefficient[i] * x^i), by Horner's rule."""
    result = constant(coefficients[-1], x.dtype, x.lanes)
    for coefficient in reversed(coefficients[:-1]):
        result = b.fma(result, x, coefficient)
    return result


def _exp_parts(b: Builder, x: Value, log2_base: float = _LOG2_E) -> tuple[Value, Value]:
    """(i32 that ends in the bits of n + 254, exp(r) - 1) with base^x = 2^n exp(r)."""
    shifted = b.fma(x, log2_base, _ROUNDER)
    whole = b.op("fsub", shifted, _ROUNDER)
    if log2_base == 1:
        r = b.op("fmul", b.op("fsub", x, whole), math.log(2))
    else:
        r = b.fma(whole, -_LN2_LOW, b.fma(whole, -_LN2_HIGH, x))
    fraction = b.fma(b.op("fmul", r, r), polynomial(b, r, _EXP), r)
    return b.bits(shifted, "i32"), fraction


def _power_of_two(b: Builder, biased: Value) -> Value:
    """2^n as f32 from an i32 that ends in the bits of n + 127, for exponents of normal numbers;
    what is above these bits drops out.
    """
    return b.bits(b.op("shl", biased, 23), "f32")


def _clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    """x within [low, high]; NaN stays NaN."""
    x = b.where(b.compare("fcmp ogt", x, high), high, x)
    return b.where(b.compare("fcmp olt", x, low), low, x)


def _with_sign(b: Builder, magnitude: Value, sign: Value) -> Value:
    return b.intrinsic("copysign", magnitude, sign)


def _exp(b: Builder, exponent: Value, fraction: Value) -> Value:
    """From the parts, scaled in two steps, since 2^n itself may be out of range."""
    half = b.op("lshr", exponent, 1)
    scale = _power_of_two(b, half)
    return b.op(
        "fmul", b.fma(fraction, scale, scale), _power_of_two(b, b.op("sub", exponent, half))
    )


def exp(b: Builder, x: Value) -> Value:
    return _exp(b, *_exp_parts(b, _clamp(b, x, -104.0, 89.0)))


def exp2(b: Builder, x: Value) -> Value:
    return _exp(b, *_exp_parts(b, _clamp(b, x, -151.0, 129.0), 1.0))


def expm1(b: Builder, x: Value) -> Value:
    exponent, fraction = _exp_parts(b, _clamp(b, x, -20.0, 89.0))
    scale = _power_of_two(b, b.op("sub", exponent, _BIAS + 1))  # half: 2^128 is no f32
    half = b.fma(fraction, scale, b.op("fsub", scale, 0.5))
    tiny = b.compare("fcmp olt", b.intrinsic("fabs", x), 2.0**-25)  # keeps -0 and subnormals
    return b.where(tiny, x, b.op("fmul", half, 2.0))


def _log_of_parts(b: Builder, f: Value, exponent: Value) -> Value:
    """log(1 + f) + exponent * ln 2, for f in [-1/3, 1/3]."""
    square = b.op("fmul", f, f)
    cubic = b.op("fmul", b.op("fmul", square, f), polynomial(b, f, _LOG))
    low = b.fma(exponent, _LN2_LOW, b.fma(square, -0.5, cubic))
    return b.fma(exponent, _LN2_HIGH, b.op("fadd", low, f))


def _exponent_bits(b: Builder, x: Value) -> Value:
    """Bits to take from those of x so that [2/3, 4/3) is left: the exponent, in its place."""
    above = b.op("sub", b.bits(x, "i32"), 0x3F2AAAAB)  # the bits of 2/3
    return b.op("and", above, -(1 << 23))


def _log_edges(b: Builder, result: Value, x: Value) -> Value:
    """The logarithm of x is `result`, but at 0, below, at infinity and at NaN."""
    unusual = b.compare("fcmp ueq", x, math.inf)
    result = b.where(unusual, x, result)
    result = b.where(b.compare("fcmp oeq", x, 0.0), -math.inf, result)
    return b.where(b.compare("fcmp olt", x, 0.0), math.nan, result)


def log(b: Builder, x: Value) -> Value:
    subnormal = b.compare("fcmp olt", x, 2.0**-126)
    normal = b.where(subnormal, b.op("fmul", x, 2.0**23), x)
    shift = _exponent_bits(b, normal)
    f = b.op("fsub", b.bits(b.op("sub", b.bits(normal, "i32"), shift), "f32"), 1.0)
    exponent = b.convert("sitofp", b.op("ashr", shift, 23), "f32")
    exponent = b.op("fsub", exponent, b.where(subnormal, constant(23.0, "f32", x.lanes), 0.0))
    return _log_edges(b, _log_of_parts(b, f, exponent), x)


def log1p(b: Builder, x: Value) -> Value:
    above = b.op("fadd", x, 1.0)
    shift = _exponent_bits(b, above)
    inverse = b.bits(b.op("sub", constant(0x3F800000, "i32", x.lanes), shift), "f32")  # 2^-exponent
    f = b.fma(x, inverse, b.op("fsub", inverse, 1.0))
    direct = b.op("fsub", b.bits(b.op("sub", b.bits(above, "i32"), shift), "f32"), 1.0)
    f = b.where(b.compare("fcmp ogt", x, 2.0**30), direct, f)  # 2^-exponent may be out of range
    exponent = b.convert("sitofp", b.op("ashr", shift, 23), "f32")
    result = _log_of_parts(b, f, exponent)
    tiny = b.compare("fcmp olt", b.intrinsic("fabs", x), 2.0**-25)
    result = b.where(tiny, x, result)
    result = b.where(b.compare("fcmp ueq", x, math.inf), x, result)
    result = b.where(b.compare("fcmp oeq", x, -1.0), -math.inf, result)
    return b.where(b.compare("fcmp olt", x, -1.0), math.nan, result)


def tanh(b: Builder, x: Value) -> Value:
    size = b.intrinsic("fabs", x)
    square = b.op("fmul", x, x)
    small = b.fma(b.op("fmul", square, x), polynomial(b, square, _TANH), x)
    bounded = _clamp(b, b.op("fadd", size, size), 0.0, 40.0)
    exponent, fraction = _exp_parts(b, bounded)
    scale = _power_of_two(b, b.op("sub", exponent, _BIAS))
    two = constant(2.0, "f32", x.lanes)
    quotient = b.op("fdiv", two, b.op("fadd", b.fma(fraction, scale, scale), 1.0))
    large = _with_sign(b, b.op("fsub", constant(1.0, "f32", x.lanes), quotient), x)
    return b.where(b.compare("fcmp olt", size, 0.625), small, large)


def erf(b: Builder, x: Value) -> Value:
    size = b.intrinsic("fabs", x)
    small = b.fma(x, polynomial(b, b.op("fmul", x, x), _ERF_SMALL), x)
    bounded = _clamp(b, size, 0.0, 3.93)  # erf is 1 from there on
    minus = b.op("fsub", constant(0.0, "f32", x.lanes), bounded)
    tail = exp(b, b.fma(polynomial(b, bounded, _ERF_LARGE), bounded, minus))
    large = _with_sign(b, b.op("fsub", constant(1.0, "f32", x.lanes), tail), x)
    return b.where(b.compare("fcmp olt", size, 0.927), small, large)


VECTOR_FUNCTIONS: dict[str, Callable[[Builder, Value], Value]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log1p": log1p, "tanh": tanh, "erf": erf,
}  # fmt: skip
