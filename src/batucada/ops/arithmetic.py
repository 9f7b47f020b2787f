"""PyTorch's arithmetic operators with options, and those that are a few elementwise operations
of ours.
"""

from __future__ import annotations

import math
from typing import Any

from batucada.ir.graph import Node
from batucada.ops.base import make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import argument_dtype, cast, floating, tensor
from batucada.ops.view import expand


def scaled(x: Node, factor: Any) -> Node:
    return x if factor == 1 else make("mul", x, scalar(factor, x.type.dtype))


def scaled_sum(x: Node, alpha: Any, y: Node, beta: Any) -> Node:
    """alpha * x + beta * y"""
    return scaled(x, alpha) if beta == 0 else make("add", scaled(x, alpha), scaled(y, beta))


@translates("aten.add.Tensor", "aten.add.Scalar")
def _add(x: Any, y: Any, alpha: Any = 1) -> Node:
    dtype = argument_dtype((x, y))
    return make("add", tensor(x, dtype), scaled(tensor(y, dtype), alpha))


@translates("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(x: Any, y: Any, alpha: Any = 1) -> Node:
    dtype = argument_dtype((x, y))
    return make("sub", tensor(x, dtype), scaled(tensor(y, dtype), alpha))


@translates("aten.rsub.Tensor", "aten.rsub.Scalar")
def _rsub(x: Any, y: Any, alpha: Any = 1) -> Node:
    return _sub(y, x, alpha)


@translates("aten.pow.Tensor_Scalar")
def _pow(x: Node, exponent: float) -> Node:
    dtype = argument_dtype((x, exponent))
    x = cast(x, dtype)
    simple = {
        1: lambda: x,
        2: lambda: make("mul", x, x),
        3: lambda: make("mul", make("mul", x, x), x),
    }
    if exponent in simple:
        return simple[int(exponent)]()
    if x.type.is_float and exponent in (0.5, -0.5, -1):
        return make({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[exponent], x)
    return make("pow", x, scalar(exponent, dtype))


@translates("aten.square.default")
def _square(x: Node) -> Node:
    return make("mul", x, x)


@translates("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _div_mode(x: Any, y: Any, *, rounding_mode: str | None = None) -> Node:
    dtype = argument_dtype((x, y))
    if rounding_mode == "floor":
        return make("floor_div", tensor(x, dtype), tensor(y, dtype))
    floats: Any = dtype if dtype[0] in "fb" and dtype != "bool" else "f32"
    if rounding_mode is None:
        return make("div", tensor(x, floats), tensor(y, floats))
    quotient = make("div", tensor(x, dtype), tensor(y, dtype))
    return make("trunc", quotient) if quotient.type.is_float else quotient


@translates(
    "aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar"
)
def _where(condition: Node, x: Any, y: Any) -> Node:
    dtype = argument_dtype((x, y))
    return make("where", cast(condition, "bool"), tensor(x, dtype), tensor(y, dtype))


@translates("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(x: Node, mask: Node, value: Any) -> Node:
    return make("where", cast(mask, "bool"), tensor(value, x.type.dtype), x)


@translates("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default")
def _clamp(x: Node, low: Any = None, high: Any = None) -> Node:
    dtype = argument_dtype(tuple(v for v in (x, low, high) if v is not None))
    out = cast(x, dtype)
    if low is not None:
        out = make("maximum", out, tensor(low, dtype))
    return out if high is None else make("minimum", out, tensor(high, dtype))


@translates("aten.clamp_min.default", "aten.clamp_min.Tensor")
def _clamp_min(x: Node, low: Any) -> Node:
    return _clamp(x, low)


@translates("aten.clamp_max.default", "aten.clamp_max.Tensor")
def _clamp_max(x: Node, high: Any) -> Node:
    return _clamp(x, None, high)


@translates("aten.addcmul.default")
def _addcmul(x: Node, a: Node, b: Node, *, value: Any = 1) -> Node:
    return make("add", x, scaled(make("mul", a, b), value))


@translates("aten.addcdiv.default")
def _addcdiv(x: Node, a: Node, b: Node, *, value: Any = 1) -> Node:
    return make("add", x, scaled(make("div", a, b), value))


@translates("aten.lerp.Scalar", "aten.lerp.Tensor")
def _lerp(x: Node, end: Node, weight: Any) -> Node:
    return make("add", x, make("mul", tensor(weight, x.type.dtype), make("sub", end, x)))


@translates("aten.fill.Scalar")
def _fill(x: Node, value: Any) -> Node:
    return expand(scalar(value, x.type.dtype), x.type.shape)


@translates("aten.copy.default")
def _copy(x: Node, source: Node, non_blocking: bool = False) -> Node:
    return expand(cast(source, x.type.dtype), x.type.shape)


@translates("aten.logical_and.default")
def _logical_and(x: Node, y: Node) -> Node:
    return make("and", cast(x, "bool"), cast(y, "bool"))


@translates("aten.logical_or.default")
def _logical_or(x: Node, y: Node) -> Node:
    return make("or", cast(x, "bool"), cast(y, "bool"))


@translates("aten.logical_xor.default")
def _logical_xor(x: Node, y: Node) -> Node:
    return make("xor", cast(x, "bool"), cast(y, "bool"))


@translates("aten.logical_not.default")
def _logical_not(x: Node) -> Node:
    return make("not", cast(x, "bool"))


@translates("aten.bitwise_not.default")
def _bitwise_not(x: Node) -> Node:
    if x.type.dtype == "bool":
        return make("not", x)
    return make("xor", x, scalar(255 if x.type.dtype == "u8" else -1, x.type.dtype))


@translates("aten.sign.default", "aten.sgn.default")
def _sign(x: Node) -> Node:
    return x if x.type.dtype == "bool" else make("sign", x)


@translates("aten.isnan.default")
def _isnan(x: Node) -> Node:
    return make("isnan", x) if x.type.is_float else full(x.type.shape, False, "bool")


@translates("aten.isinf.default")
def _isinf(x: Node) -> Node:
    return make("isinf", x) if x.type.is_float else full(x.type.shape, False, "bool")


@translates("aten.isfinite.default")
def _isfinite(x: Node) -> Node:
    if not x.type.is_float:
        return full(x.type.shape, True, "bool")
    return make("eq", make("sub", x, x), scalar(0, x.type.dtype))


def _other_of_nan(op: str, x: Node, y: Node) -> Node:
    dtype = argument_dtype((x, y))
    x, y = cast(x, dtype), cast(y, dtype)
    if not x.type.is_float:
        return make(op, x, y)
    return make("where", make("isnan", x), y, make("where", make("isnan", y), x, make(op, x, y)))


@translates("aten.fmax.default")
def _fmax(x: Node, y: Node) -> Node:
    """The larger one; where one is NaN the other"""
    return _other_of_nan("maximum", x, y)


@translates("aten.fmin.default")
def _fmin(x: Node, y: Node) -> Node:
    """The smaller one; where one is NaN the other"""
    return _other_of_nan("minimum", x, y)


@translates("aten.xlogy.Tensor", "aten.xlogy.Scalar_Other", "aten.xlogy.Scalar_Self")
def _xlogy(x: Any, y: Any) -> Node:
    """x * log(y), and 0 where x is 0 unless y is NaN"""
    dtype = argument_dtype((x, y))
    x, y = floating(tensor(x, dtype)), floating(tensor(y, dtype))
    dtype = x.type.dtype
    zero = scalar(0, dtype)
    product = make("where", make("eq", x, zero), zero, make("mul", x, make("log", y)))
    return make("where", make("isnan", y), scalar(math.nan, dtype), product)


@translates("aten.angle.default")
def _angle(x: Node) -> Node:
    """pi below zero, else 0; a NaN is passed on"""
    x = floating(x)
    zero, half_turn = scalar(0, x.type.dtype), scalar(math.pi, x.type.dtype)
    found = make("where", make("lt", x, zero), half_turn, zero)
    return make("where", make("isnan", x), x, found)


@translates("aten.signbit.default", "prims.signbit.default")
def _signbit(x: Node) -> Node:
    """x < 0, and true of -0, whose reciprocal is -inf"""
    if x.type.dtype == "bool":
        return full(x.type.shape, False, "bool")
    zero = scalar(0, x.type.dtype)
    below = make("lt", x, zero)
    if not x.type.is_float:
        return below
    return make("or", below, make("lt", make("reciprocal", x), zero))


@translates("aten.hypot.default", "prims.hypot.default")
def _hypot(x: Node, y: Node) -> Node:
    """sqrt(x² + y²) by the larger one m: m * sqrt(1 + (the smaller / m)²); infinite if one is"""
    dtype = argument_dtype((x, y))
    x, y = make("abs", cast(x, dtype)), make("abs", cast(y, dtype))
    zero, infinity = scalar(0, dtype), scalar(math.inf, dtype)
    high, low = make("maximum", x, y), make("minimum", x, y)
    ratio = make("where", make("eq", high, zero), zero, make("div", low, high))
    root = make("sqrt", make("add", scalar(1, dtype), make("mul", ratio, ratio)))
    infinite = make("or", make("eq", x, infinity), make("eq", y, infinity))
    return make("where", infinite, infinity, make("mul", high, root))


def _ratio_of(x: Node, above: tuple[float, ...], below: tuple[float, ...]) -> Node:
    """One polynomial over another, by Horner's rule, the highest power's factor first."""

    def polynomial(factors: tuple[float, ...]) -> Node:
        value = scalar(factors[0], x.type.dtype)
        for factor in factors[1:]:
            value = make("add", make("mul", value, x), scalar(factor, x.type.dtype))
        return value

    return make("div", polynomial(above), polynomial(below))


@translates("aten.erfinv.default", "prims.erf_inv.default")
def _erfinv(x: Node) -> Node:
    """Giles' start, a rational function for |x| up to 0.7 and one beyond, and two Newton steps"""
    y = floating(x)
    dtype = y.type.dtype
    size, one, half = make("abs", y), scalar(1, dtype), scalar(0.5, dtype)
    square = make("mul", y, y)
    middle = make("mul", y, _ratio_of(square, _MIDDLE_ABOVE, _MIDDLE_BELOW))
    depth = make("sqrt", make("neg", make("log", make("mul", make("sub", one, size), half))))
    outer = make("mul", make("sign", y), _ratio_of(depth, _OUTER_ABOVE, _OUTER_BELOW))
    found = make("where", make("le", size, scalar(0.7, dtype)), middle, outer)
    for _ in range(2):
        slope = make("exp", make("neg", make("mul", found, found)))
        slope = make("mul", slope, scalar(2 / math.sqrt(math.pi), dtype))
        found = make("sub", found, make("div", make("sub", make("erf", found), y), slope))
    edge = make("mul", y, scalar(math.inf, dtype))
    return make("where", make("eq", size, one), edge, found)


_MIDDLE_ABOVE = (-0.140543331, 0.914624893, -1.645349621, 0.886226899)
_MIDDLE_BELOW = (0.012229801, -0.329097515, 1.442710462, -2.118377725, 1.0)
_OUTER_ABOVE = (1.641345311, 3.429567803, -1.624906493, -1.970840454)
_OUTER_BELOW = (1.637067800, 3.543889200, 1.0)
"""Of the first approximation that PyTorch makes, too, highest power first."""
