"""digamma, the derivative of lgamma, in f64 as LLVM IR."""

from __future__ import annotations

import math

from batucada.codegen.builder import Builder, Value, constant
from batucada.codegen.vecmath import polynomial

_SHIFT = 10
_ASYMPTOTIC = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
"""log(x) - 1/2x - digamma(x) in powers of x^-2 after the first: the Bernoulli numbers B_2k / 2k."""


def digamma(b: Builder, x: Value) -> Value:
    """Below zero by reflection; below 10 by recurrence; from there by its asymptotic series.

    -inf at 0 and +inf at -0, NaN at the negative integers, as PyTorch has it.
    """
    negative = b.compare("fcmp olt", x, 0.0)
    one = constant(1.0, "f64", x.lanes)
    positive = b.where(negative, b.op("fsub", one, x), x)
    value = _positive(b, positive)
    fraction = b.op("fsub", x, b.intrinsic("trunc", x))
    angle = b.op("fmul", fraction, math.pi)
    tangent = b.each_lane("tan", (angle,))
    reflected = b.op("fsub", value, b.op("fdiv", constant(math.pi, "f64", x.lanes), tangent))
    result = b.where(negative, reflected, value)
    whole = b.op("and", negative, b.compare("fcmp oeq", fraction, 0.0))
    result = b.where(whole, math.nan, result)
    pole = b.intrinsic("copysign", constant(math.inf, "f64", x.lanes), x)
    pole = b.emit(f"fneg {pole}", "f64", x.lanes)
    return b.where(b.compare("fcmp oeq", x, 0.0), pole, result)


def _positive(b: Builder, x: Value) -> Value:
    one = constant(1.0, "f64", x.lanes)
    total = constant(0.0, "f64", x.lanes)
    for _ in range(_SHIFT):
        below = b.compare("fcmp olt", x, float(_SHIFT))
        total = b.where(below, b.op("fsub", total, b.op("fdiv", one, x)), total)
        x = b.where(below, b.op("fadd", x, 1.0), x)
    inverse = b.op("fdiv", one, x)
    square = b.op("fmul", inverse, inverse)
    series = b.op("fmul", square, polynomial(b, square, _ASYMPTOTIC))
    logarithm = b.each_lane("log", (x,))
    sum_ = b.op("fsub", logarithm, b.fma(inverse, 0.5, series))
    return b.op("fadd", sum_, total)
