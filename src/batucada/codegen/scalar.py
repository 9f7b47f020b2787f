"""Every elementwise operation of the loop language, as LLVM IR on values of any number of lanes.

f16 and bf16 are computed in f32 and rounded after each operation.  Integer arithmetic wraps; an
integer divided by zero gives 0 rather than a trap.  Where neither an instruction nor `vecmath` has
the function, the C library is called for each lane.
"""

from __future__ import annotations

from collections.abc import Callable

from batucada.codegen import digamma, philox, vecmath, vecmath_pow
from batucada.codegen.builder import BITS, Builder, ModuleText, Value, constant, llvm_type
from batucada.codegen.casts import cast
from batucada.ir.types import FLOATS, DType

FUNCTIONS = "batucada.function."
"""The names of the functions that a module has of its own begin so."""

_LIBRARY = frozenset(
    "exp expm1 log log1p log2 log10 exp2 sin cos tan asin acos atan sinh cosh tanh"
    " asinh acosh atanh erf erfc lgamma".split()
)
_INTRINSICS = {
    "abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round":
    "roundeven",
}  # fmt: skip
_FLOAT_OPCODES = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "fmod": "frem"}
_INTEGER_OPCODES = {op: op for op in ("add", "sub", "mul", "and", "or", "xor")}
_FLOAT_ORDERS = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def apply(b: Builder, op: str, args: list[Value]) -> Value:
    """The result of `op`, an elementwise one but `cast`; all arguments have the same number of
    lanes.
    """
    first = args[0].dtype
    if op == "where":
        return b.where(*args)
    if op == "philox":
        return _inlined(b, op, philox.word, *args)
    if op == "fma" and first not in FLOATS:
        return b.op("add", b.op("mul", args[0], args[1]), args[2])
    if first in ("bf16", "f16"):
        result = apply(b, op, [cast(b, arg, "f32") for arg in args])
        return result if result.dtype == "bool" else cast(b, result, first)
    if op == "fma":
        return b.fma(*args)
    if op in _FLOAT_ORDERS:
        return _compare(b, op, *args)
    if len(args) == 2:
        return _binary_float(b, op, *args) if first in FLOATS else _binary_integer(b, op, *args)
    return _unary_float(b, op, args[0]) if first in FLOATS else _unary_integer(b, op, args[0])


def reduce(b: Builder, op: str, value: Value) -> Value:
    """All lanes combined, lower half with upper half until one is left: the order is part of the
    result.
    """
    while value.lanes > 1:
        value = apply(b, op, [b.half(value, upper=False), b.half(value, upper=True)])
    return value


def _compare(b: Builder, op: str, left: Value, right: Value) -> Value:
    if left.dtype in FLOATS:
        return b.compare(f"fcmp {_FLOAT_ORDERS[op]}", left, right)
    unsigned = left.dtype in ("u8", "bool") and op not in ("eq", "ne")
    sign = "" if op in ("eq", "ne") else "u" if unsigned else "s"
    return b.compare(f"icmp {sign}{op}", left, right)


def _unary_float(b: Builder, op: str, x: Value) -> Value:
    if op in _INTRINSICS:
        return b.intrinsic(_INTRINSICS[op], x)
    if op == "neg":
        return b.emit(f"fneg {x}", x.dtype, x.lanes)
    if op == "isnan":
        return b.compare("fcmp uno", x, x)
    if op == "isinf":
        return b.compare("fcmp oeq", b.intrinsic("fabs", x), float("inf"))
    if op == "sign":
        above, below = b.compare("fcmp ogt", x, 0.0), b.compare("fcmp olt", x, 0.0)
        return b.op("fsub", cast(b, above, x.dtype), cast(b, below, x.dtype))
    if op in ("reciprocal", "rsqrt"):
        divisor = b.intrinsic("sqrt", x) if op == "rsqrt" else x
        return b.op("fdiv", constant(1.0, x.dtype, x.lanes), divisor)
    if x.dtype == "f32" and op in vecmath.VECTOR_FUNCTIONS:
        return _inlined(b, op, vecmath.VECTOR_FUNCTIONS[op], x)
    if op == "digamma":
        return cast(b, _inlined(b, op, digamma.digamma, cast(b, x, "f64")), x.dtype)
    if op not in _LIBRARY:
        raise ValueError(f"{op} has no meaning for {x.dtype}")
    return b.each_lane(_library_name(op, x.dtype), (x,))


def _library_name(op: str, dtype: DType) -> str:
    return op if dtype == "f64" else f"{op}f"


def _unary_integer(b: Builder, op: str, x: Value) -> Value:
    if op == "not":
        return b.op("xor", x, 1 if x.dtype == "bool" else -1)
    if op in ("floor", "ceil", "round", "trunc"):
        return x
    if op in ("isnan", "isinf"):
        return constant(False, "bool", x.lanes)
    zero = constant(0, x.dtype, x.lanes)
    if op == "neg":
        return b.op("sub", zero, x)
    if op == "abs":
        return (
            x if x.dtype == "u8" else b.where(b.compare("icmp slt", x, 0), b.op("sub", zero, x), x)
        )
    if op == "sign":
        above, below = _compare(b, "gt", x, zero), _compare(b, "lt", x, zero)
        return b.op("sub", cast(b, above, x.dtype), cast(b, below, x.dtype))
    raise ValueError(f"{op} has no meaning for {x.dtype}")


def _binary_float(b: Builder, op: str, x: Value, y: Value) -> Value:
    if op in _FLOAT_OPCODES:
        return b.op(_FLOAT_OPCODES[op], x, y)
    if op in ("maximum", "minimum"):
        return _extreme(b, op, x, y)
    if op == "remainder":
        return _float_remainder(b, x, y)
    if op == "floor_div":
        return _float_floor_div(b, x, y)
    if op == "pow" and x.dtype == "f32":
        return _inlined(b, op, vecmath_pow.power, x, y)
    if op in ("pow", "atan2"):
        return b.each_lane(_library_name(op, x.dtype), (x, y))
    raise ValueError(f"{op} has no meaning for {x.dtype}")


def _extreme(b: Builder, op: str, x: Value, y: Value) -> Value:
    """The greater or smaller; x when they compare equal or x is NaN, so one instruction beside the
    y test.
    """
    order = "fcmp ogt" if op == "maximum" else "fcmp olt"
    best = b.where(b.compare(order, y, x), y, x)
    if not y.text.startswith(("%", "poison")) and "0x7FF8" not in y.text:
        return best  # a constant that is no NaN
    return b.where(b.compare("fcmp uno", y, y), y, best)


def _truncated_rest(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """(C's remainder of x / y, whether its sign is not that of y)."""
    rest = b.op("frem", x, y)
    opposite = b.op("xor", b.compare("fcmp olt", rest, 0.0), b.compare("fcmp olt", y, 0.0))
    return rest, b.op("and", opposite, b.compare("fcmp une", rest, 0.0))


def _float_remainder(b: Builder, x: Value, y: Value) -> Value:
    """With the sign of y, as Python."""
    rest, wrong = _truncated_rest(b, x, y)
    return b.where(wrong, b.op("fadd", rest, y), rest)


def _float_floor_div(b: Builder, x: Value, y: Value) -> Value:
    """Python's: x minus its remainder is a multiple of y but for rounding, which is put right."""
    rest, wrong = _truncated_rest(b, x, y)
    quotient = b.op("fdiv", b.op("fsub", x, rest), y)
    quotient = b.where(wrong, b.op("fsub", quotient, 1.0), quotient)
    floor = b.intrinsic("floor", quotient)
    low = b.compare("fcmp ogt", b.op("fsub", quotient, floor), 0.5)
    floor = b.where(low, b.op("fadd", floor, 1.0), floor)
    plain = b.op("fdiv", x, y)
    zero = b.intrinsic("copysign", constant(0.0, x.dtype, x.lanes), plain)
    floor = b.where(b.compare("fcmp oeq", quotient, 0.0), zero, floor)
    return b.where(b.compare("fcmp oeq", y, 0.0), plain, floor)


def _binary_integer(b: Builder, op: str, x: Value, y: Value) -> Value:
    if x.dtype == "bool" and op in ("add", "mul", "maximum", "minimum"):
        return b.op("or" if op in ("add", "maximum") else "and", x, y)
    if op in _INTEGER_OPCODES:
        return b.op(_INTEGER_OPCODES[op], x, y)
    if op in ("maximum", "minimum"):
        order = "gt" if op == "maximum" else "lt"
        return b.where(_compare(b, order, x, y), x, y)
    if op in ("div", "fmod", "floor_div", "remainder"):
        return _integer_division(b, op, x, y)
    if op in ("shl", "shr"):
        return _shift(b, op, x, y)
    if op == "pow":
        return _inlined(b, op, _integer_power, x, y)
    raise ValueError(f"{op} has no meaning for {x.dtype}")


def _integer_division(b: Builder, op: str, x: Value, y: Value) -> Value:
    """Total: by 0 gives 0, and by -1 is done as a negation, which wraps instead of trapping."""
    sign = "u" if x.dtype == "u8" else "s"
    none = b.compare("icmp eq", y, 0)
    minus = constant(False, "bool", x.lanes) if sign == "u" else b.compare("icmp eq", y, -1)
    safe = b.where(b.op("or", none, minus), 1, y)
    quotient = b.op(f"{sign}div", x, safe)
    rest = b.op("sub", x, b.op("mul", quotient, safe))
    zero = constant(0, x.dtype, x.lanes)
    if sign == "s" and op in ("floor_div", "remainder"):
        opposite = b.compare("icmp slt", b.op("xor", rest, y), 0)
        below = b.op("and", opposite, b.compare("icmp ne", rest, 0))
        quotient = b.where(below, b.op("sub", quotient, 1), quotient)
        rest = b.where(below, b.op("add", rest, y), rest)
    if op in ("fmod", "remainder"):
        return b.where(none, 0, rest)
    quotient = b.where(minus, b.op("sub", zero, x), quotient)
    return b.where(none, 0, quotient)


def _shift(b: Builder, op: str, x: Value, y: Value) -> Value:
    """LLVM leaves a shift by all bits undefined: it is replaced by what the language says."""
    inside = b.compare("icmp ult", y, BITS[x.dtype])  # a negative number is a large unsigned one
    count = b.where(inside, y, 0)
    if op == "shl":
        return b.where(inside, b.op("shl", x, count), 0)
    signed = x.dtype != "u8"
    beyond = b.op("ashr", x, BITS[x.dtype] - 1) if signed else constant(0, x.dtype, x.lanes)
    return b.where(inside, b.op("ashr" if signed else "lshr", x, count), beyond)


def _integer_power(b: Builder, x: Value, y: Value) -> Value:
    """By repeated squaring, unrolled over the exponent's bits; a negative exponent leaves 1, -1 or
    0.
    """
    one = constant(1, x.dtype, x.lanes)
    result, square, rest = one, x, y
    for _ in range(min(BITS[x.dtype], 63)):
        odd = b.compare("icmp ne", b.op("and", rest, 1), 0)
        result = b.where(odd, b.op("mul", result, square), result)
        square, rest = b.op("mul", square, square), b.op("lshr", rest, 1)
    if x.dtype == "u8":
        return result
    even = b.compare("icmp eq", b.op("and", y, 1), 0)
    unit = b.where(b.op("or", b.compare("icmp eq", x, 1), even), one, x)
    small = b.op("or", b.compare("icmp eq", x, 1), b.compare("icmp eq", x, -1))
    return b.where(b.compare("icmp slt", y, 0), b.where(small, unit, 0), result)


def _inlined(b: Builder, op: str, write: Callable[..., Value], *args: Value) -> Value:
    """A call of a function of this module that LLVM inlines; written at its first use."""
    dtype, lanes = args[0].dtype, args[0].lanes
    name = f"{FUNCTIONS}{op}.{dtype}x{lanes}"
    if name not in b.module.functions:
        b.module.functions[name] = _function_text(b.module, name, write, dtype, lanes, len(args))
    return b.call(name, args, dtype)


def _function_text(
    module: ModuleText, name: str, write: Callable[..., Value], dtype: DType, lanes: int, arity: int
) -> str:
    inner = Builder(module)
    args = [Value(f"%x{position}", dtype, lanes) for position in range(arity)]
    result = write(inner, *args)
    head = f"define internal {llvm_type(dtype, lanes)} @{name}({', '.join(map(str, args))}) #1 {{"
    return "\n".join([head, *inner.lines, f"  ret {result}", "}\n"])
