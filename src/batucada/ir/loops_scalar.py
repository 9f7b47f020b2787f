"""What every elementwise operation of the loop language means, in numpy: the reference of code
generation.

Values are arrays of one element a lane.  bf16 values are kept as f32 that bf16 can hold.  The
elementary functions of f32 are computed in f64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from batucada.ir.loops import PHILOX_MULTIPLIER, PHILOX_ROUNDS, PHILOX_WEYL
from batucada.ir.types import FLOATS, DType

Array = npt.NDArray[Any]

NUMPY: dict[DType, type[np.generic]] = {
    "f64": np.float64, "f32": np.float32, "bf16": np.float32, "f16": np.float16, "i64": np.int64,
    "i32": np.int32, "i16": np.int16, "i8": np.int8, "u8": np.uint8, "bool": np.bool_,
}  # fmt: skip
"""Types of values; a buffer of bf16 is one of their bits, uint16."""


def apply(op: str, dtype: DType, args: list[Array]) -> Array:
    """`op` on arguments of `dtype` (that of the last argument); shapes broadcast."""
    with np.errstate(all="ignore"):
        if op == "where":
            return np.where(args[0], args[1], args[2])
        if dtype in ("bf16", "f16"):
            result = apply(op, "f32", [arg.astype(np.float32) for arg in args])
            return result if result.dtype == np.bool_ else cast(result, "f32", dtype)
        table = _FLOAT if dtype in FLOATS else _INTEGER
        if op not in table:
            raise ValueError(f"{op} has no meaning for {dtype}")
        return np.asarray(table[op](*np.broadcast_arrays(*args)))


def reduce(op: str, dtype: DType, value: Array) -> Array:
    """All lanes combined, lower half with upper half until one is left."""
    while len(value) > 1:
        half = len(value) // 2
        value = apply(op, dtype, [value[:half], value[half:]])
    return value


def cast(value: Array, source: DType, dtype: DType) -> Array:
    """Floats become integers by truncation and saturate (NaN gives 0); integers wrap."""
    if source == dtype:
        return value
    with np.errstate(all="ignore"):
        if dtype == "bool":
            return value != 0
        if dtype == "bf16":
            return round_to_bf16(value.astype(np.float32))
        if dtype == "f16":
            return value.astype(np.float32).astype(np.float16)
        if source in FLOATS and dtype not in FLOATS:
            return _saturate(value, dtype)
        return value.astype(NUMPY[dtype])


def _saturate(value: Array, dtype: DType) -> Array:
    limits = np.iinfo(NUMPY[dtype])  # type: ignore[type-var]
    wide = np.where(np.isnan(value), 0, np.trunc(value.astype(np.float64)))
    inside = np.clip(wide, float(limits.min), float(limits.max))
    exact = np.where(np.abs(inside) < 2.0**63, inside, 0).astype(np.int64)
    exact = np.where(wide >= limits.max, limits.max, exact)
    return np.where(wide <= limits.min, limits.min, exact).astype(NUMPY[dtype])


def round_to_bf16(value: Array) -> Array:
    """Nearest bf16, ties to even, as f32."""
    return bf16_from_bits(bf16_bits(value))


def bf16_bits(value: Array) -> Array:
    bits = value.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(value), 0x7FC0, rounded).astype(np.uint16)


def bf16_from_bits(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function computed in f64 and rounded to its arguments' type."""

    def computed(*args: Array) -> Array:
        return function(*(arg.astype(np.float64) for arg in args)).astype(args[0].dtype)

    return computed


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """The same for a function of the math module."""
    return _wide(np.vectorize(function, otypes=[np.float64]))


def _lgamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.lgamma(x)


def _digamma(x: float) -> float:
    if x == 0:
        return -math.copysign(math.inf, x)
    if x < 0:
        whole = math.isinf(x) or x == math.floor(x)
        return (
            math.nan if whole else _digamma(1 - x) - math.pi / math.tan(math.pi * math.fmod(x, 1))
        )
    shift = 0.0
    while x < 40:
        shift, x = shift - 1 / x, x + 1
    z = 1 / (x * x)
    return shift + math.log(x) - 0.5 / x - z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z / 240)))


def digamma(x: Array) -> Array:
    return _each(_digamma)(x)


def _fma(a: Array, b: Array, c: Array) -> Array:
    """Rounded once."""
    single = a.dtype == np.float32
    exact = np.vectorize(_fma_exact, otypes=[np.float64], excluded={3})
    wide = [x.astype(np.float64) for x in (a, b, c)]
    return exact(*wide, single).astype(a.dtype)


def _fma_exact(a: float, b: float, c: float, single: bool) -> float:
    """In f64; for `single` rounded to odd, so that rounding on to f32 is as if done once."""
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)) or a * b == 0:
        return a * b + c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    try:
        rounded = float(exact)
    except OverflowError:
        return math.copysign(math.inf, exact)
    error = exact - Fraction(rounded)
    even = np.float64(rounded).view(np.int64) % 2 == 0
    if not single or error == 0 or not even:
        return rounded
    return math.nextafter(rounded, math.copysign(math.inf, error))


def _extreme(better: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """x unless y is better or NaN."""
    return lambda x, y: np.where(better(y, x) | (y != y), np.where(x != x, x, y), x)


def _truncated(x: Array, y: Array) -> Array:
    """Integer quotient toward zero; 0 when y is 0."""
    floor = np.floor_divide(x, np.where(y == 0, 1, y))
    rest = x - floor * y
    return np.where(
        y == 0, 0, np.where((rest != 0) & ((x < 0) != (y < 0)), floor + 1, floor)
    ).astype(x.dtype)


def _integer_rest(divide: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda x, y: np.where(y == 0, 0, x - divide(x, y) * y).astype(x.dtype)


def _integer_floor(x: Array, y: Array) -> Array:
    return np.where(y == 0, 0, np.floor_divide(x, np.where(y == 0, 1, y))).astype(x.dtype)


def _shifted(shift: Callable[..., Array], x: Array, y: Array, beyond: Array) -> Array:
    inside = (y >= 0) & (y < 8 * x.itemsize)
    return np.where(inside, shift(x, np.where(inside, y, 0)), beyond).astype(x.dtype)


def left_shift(x: Array, y: Array) -> Array:
    """0 for a shift by a negative number or by all bits."""
    return _shifted(np.left_shift, x, y, np.zeros_like(x))


def right_shift(x: Array, y: Array) -> Array:
    """0 or -1, the sign, for a shift by a negative number or by all bits."""
    return _shifted(np.right_shift, x, y, np.where(x < 0, -1, 0).astype(x.dtype))


def _integer_power(x: Array, y: Array) -> Array:
    """Wraps; a negative exponent leaves 1, -1 or 0."""
    positive = np.power(x, np.maximum(y, 0))
    unit = np.where((x == 1) | ((x == -1) & (y % 2 == 0)), 1, -1)
    return np.where(y < 0, np.where(np.abs(x) == 1, unit, 0), positive).astype(x.dtype)


def _float_floor_div(x: Array, y: Array) -> Array:
    return np.where(y == 0, x / y, np.floor_divide(x, y)).astype(x.dtype)


def _sign(x: Array) -> Array:
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def philox(low: Array, high: Array, key: Array) -> Array:
    """The first word of Philox 2x32-10 for the counter (low, high) under `key`; all i32."""
    left, right, turn_key = (x.astype(np.uint32) for x in (low, high, key))
    for _ in range(PHILOX_ROUNDS):
        wide = left.astype(np.uint64) * np.uint64(PHILOX_MULTIPLIER)
        left = (wide >> np.uint64(32)).astype(np.uint32) ^ turn_key ^ right
        right = wide.astype(np.uint32)
        turn_key = turn_key + np.uint32(PHILOX_WEYL)
    return left.astype(np.int32)


_COMPARE: dict[str, Callable[..., Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "isnan": lambda x: x != x, "maximum": _extreme(np.greater),
    "minimum": _extreme(np.less), "sign": _sign,
}  # fmt: skip

_FLOAT: dict[str, Callable[..., Array]] = _COMPARE | {
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x, "exp": _wide(np.exp), "expm1": _wide(np.expm1), "log":
    _wide(np.log),
    "log1p": _wide(np.log1p), "log2": _wide(np.log2), "log10": _wide(np.log10), "exp2":
    _wide(np.exp2),
    "sin": _wide(np.sin), "cos": _wide(np.cos), "tan": _wide(np.tan), "asin": _wide(np.arcsin),
    "acos": _wide(np.arccos), "atan": _wide(np.arctan), "sinh": _wide(np.sinh), "cosh":
    _wide(np.cosh),
    "tanh": _wide(np.tanh), "asinh": _wide(np.arcsinh), "acosh": _wide(np.arccosh),
    "atanh": _wide(np.arctanh), "erf": _each(math.erf), "erfc": _each(math.erfc),
    "lgamma": _each(_lgamma), "digamma": digamma, "floor": np.floor, "ceil": np.ceil,
    "round": np.rint, "trunc": np.trunc, "isinf": np.isinf, "add": np.add, "sub": np.subtract,
    "mul": np.multiply, "div": np.divide, "pow": _wide(np.power), "fmod": np.fmod,
    "remainder": np.remainder, "floor_div": _float_floor_div, "atan2": _wide(np.arctan2), "fma":
    _fma,
}  # fmt: skip

_INTEGER: dict[str, Callable[..., Array]] = _COMPARE | {
    "neg": np.negative, "abs": np.abs, "not": np.logical_not, "add": np.add, "sub": np.subtract,
    "mul": np.multiply, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "isinf": lambda x: np.zeros(x.shape, bool), "fma": lambda a, b, c: a * b + c, "div": _truncated,
    "floor_div": _integer_floor, "fmod": _integer_rest(_truncated),
    "remainder": _integer_rest(_integer_floor), "pow": _integer_power, "philox": philox,
    "shl": left_shift, "shr": right_shift,
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), np.positive),
}  # fmt: skip
