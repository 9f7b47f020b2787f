"""Elementwise operations: one line each.  Arguments have one dtype and broadcast as in numpy.

They are emitted as the scalar operation of the same name in the loop language.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import DType, Type
from batucada.ops.base import ATEN, NUMPY, Op, TypeRuleError, broadcast, define, make
from batucada.ops.create import scalar

Ref = Callable[..., np.ndarray]

HALVES: frozenset[DType] = frozenset({"bf16", "f16"})
"""Stored in two bytes; sums and products of them are made in f32."""


def _same(*args: Type) -> Type:
    first = args[0]
    if any(arg.dtype != first.dtype for arg in args):
        raise TypeRuleError(f"dtypes differ: {', '.join(map(str, args))}")
    shape = broadcast(*[arg.shape for arg in args])
    return first if shape == first.shape else Type(first.dtype, shape)


def _predicate(*args: Type) -> Type:
    return Type("bool", _same(*args).shape)


def _where(condition: Type, x: Type, y: Type) -> Type:
    if condition.dtype != "bool":
        raise TypeRuleError(f"where: the condition is {condition}, not bool")
    out = _same(x, y)
    return Type(out.dtype, broadcast(condition.shape, out.shape))


def promote(a: DType, b: DType) -> DType:
    """PyTorch's promotion of two tensor dtypes."""
    order: list[DType] = ["bool", "u8", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64"]
    if {a, b} == {"u8", "i8"}:
        return "i16"
    if {a, b} == {"f16", "bf16"}:
        return "f32"
    return max(a, b, key=order.index)


def cast(x: Node, dtype: DType) -> Node:
    return x if x.type.dtype == dtype else make("cast", x, dtype=dtype)


def widens(node: Node) -> bool:
    """A conversion from half precision to f32, which is exact."""
    return node.op == "cast" and node.type.dtype == "f32" and node.args[0].type.dtype in HALVES


def widen(x: Node) -> Node:
    """Half precision as f32, anything else as it is."""
    return cast(x, "f32") if x.type.dtype in HALVES else x


def in_single(translate: Callable[..., Node]) -> Callable[..., Node]:
    """A translation computed in f32 where its tensor arguments are of half precision, and rounded
    once, to the dtype of the first of them.
    """

    @functools.wraps(translate)
    def wide(first: Node, *args: Any, **kwargs: Any) -> Node:
        if first.type.dtype not in HALVES:
            return translate(first, *args, **kwargs)
        rest = [widen(arg) if isinstance(arg, Node) else arg for arg in args]
        out = translate(widen(first), *rest, **kwargs)
        return cast(out, first.type.dtype)

    return wide


def tensor(value: Any, dtype: DType) -> Node:
    """An argument of an aten operator as a node of `dtype`: a node is cast, a number becomes a
    constant.
    """
    return cast(value, dtype) if isinstance(value, Node) else scalar(value, dtype)


def floating(x: Node) -> Node:
    """Integers and bools as f32, as PyTorch computes functions of real numbers."""
    return x if x.type.is_float else cast(x, "f32")


def argument_dtype(args: tuple[Any, ...]) -> DType:
    """The dtype in which PyTorch computes with these arguments: dimensioned tensors decide,
    0-dimensional ones and numbers only when they are of a higher category."""

    def category(dtype: DType) -> int:
        return 2 if dtype[0] in "fb" and dtype != "bool" else 0 if dtype == "bool" else 1

    def joined(dtypes: list[DType]) -> DType | None:
        out = dtypes[0] if dtypes else None
        for dtype in dtypes[1:]:
            out = promote(out or dtype, dtype)
        return out

    nodes = [a for a in args if isinstance(a, Node)]
    numbers: list[DType] = [
        "bool" if isinstance(a, bool) else "i64" if isinstance(a, int) else "f32"
        for a in args
        if not isinstance(a, Node)
    ]
    groups: tuple[list[DType], ...] = (
        [n.type.dtype for n in nodes if n.type.shape],
        [n.type.dtype for n in nodes if not n.type.shape],
        numbers,
    )
    found: DType | None = None
    for group in groups:
        dtype = joined(group)
        if dtype and (found is None or category(dtype) > category(found)):
            found = dtype
    return found or "f32"


def _translation(name: str, floats: bool) -> Callable[..., Node]:
    def translate(*args: Any, **_: Any) -> Node:
        dtype = argument_dtype(args)
        if floats and dtype not in ("f64", "f32", "f16", "bf16"):
            dtype = "f32"
        return make(name, *(tensor(arg, dtype) for arg in args))

    return translate


def _define(
    name: str, infer: Callable[..., Type], ref: Ref, aten: str, flops: int, floats: bool
) -> None:
    define(Op(name, "map", infer, ref, flops))
    for overload in aten.split():
        ATEN[f"aten.{overload}"] = _translation(name, floats)


def unary(name: str, ref: Ref, aten: str = "", flops: int = 1, floats: bool = True) -> None:
    _define(name, _same, ref, aten or f"{name}.default", flops, floats)


def binary(name: str, ref: Ref, aten: str = "", flops: int = 1, floats: bool = False) -> None:
    overloads = aten or f"{name}.Tensor {name}.Scalar"
    _define(name, _same, ref, overloads, flops, floats)


def compare(name: str, ref: Ref) -> None:
    _define(name, _predicate, ref, f"{name}.Tensor {name}.Scalar", 1, False)


def of_loops(name: str) -> Ref:
    """A reference of the loop language, which a process that only runs a program does not need."""

    def ref(*args: np.ndarray) -> np.ndarray:
        from batucada.ir import loops_scalar

        return getattr(loops_scalar, name)(*args)

    return ref


def _each(function: Callable[[float], float]) -> Ref:
    return lambda x: np.vectorize(function, otypes=[np.float64])(x).astype(x.dtype)


def _truncated_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype)


unary("neg", np.negative, floats=False)
unary("abs", np.abs, floats=False)
define(Op("sign", "map", _same, lambda x: np.nan_to_num(np.sign(x), nan=0)))
unary("floor", np.floor, floats=False)
unary("ceil", np.ceil, floats=False)
unary("round", np.round, floats=False)
unary("trunc", np.trunc, "trunc.default fix.default", floats=False)
unary("sqrt", np.sqrt)
unary("rsqrt", lambda x: 1 / np.sqrt(x))
unary("reciprocal", lambda x: 1 / x)
unary("exp", np.exp, flops=10)
unary("exp2", np.exp2, flops=10)
unary("expm1", np.expm1, flops=12)
unary("log", np.log, flops=10)
unary("log2", np.log2, flops=10)
unary("log10", np.log10, flops=10)
unary("log1p", np.log1p, flops=12)
unary("sin", np.sin, flops=15)
unary("cos", np.cos, flops=15)
unary("tan", np.tan, flops=20)
unary("asin", np.arcsin, flops=20)
unary("acos", np.arccos, flops=20)
unary("atan", np.arctan, flops=20)
unary("sinh", np.sinh, flops=20)
unary("cosh", np.cosh, flops=20)
unary("tanh", np.tanh, flops=15)
unary("asinh", np.arcsinh, flops=20)
unary("acosh", np.arccosh, flops=20)
unary("atanh", np.arctanh, flops=20)
unary("erf", _each(math.erf), flops=15)
unary("erfc", _each(math.erfc), flops=20)
unary("lgamma", _each(lambda x: math.inf if x <= 0 and x % 1 == 0 else math.lgamma(x)), flops=40)
unary("digamma", of_loops("digamma"), "digamma.default", flops=60)
define(Op("not", "map", _same, np.logical_not))
define(Op("isnan", "map", _predicate, np.isnan))
define(Op("isinf", "map", _predicate, np.isinf))

binary("mul", np.multiply)
binary("div", _truncated_div, "div.Tensor div.Scalar true_divide.Tensor", floats=True)
binary("pow", np.power, "pow.Tensor_Tensor pow.Scalar", flops=30)
binary("maximum", np.maximum, "maximum.default")
binary("minimum", np.minimum, "minimum.default")
binary("fmod", np.fmod)
binary("remainder", np.mod)
binary("floor_div", np.floor_divide, "floor_divide.default")
binary("atan2", np.arctan2, "atan2.default", flops=25, floats=True)
binary("and", np.bitwise_and, "bitwise_and.Tensor bitwise_and.Scalar")
binary("or", np.bitwise_or, "bitwise_or.Tensor bitwise_or.Scalar")
binary("xor", np.bitwise_xor, "bitwise_xor.Tensor bitwise_xor.Scalar")
binary("shl", of_loops("left_shift"), "bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar")
binary(
    "shr", of_loops("right_shift"), "bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar"
)
define(Op("add", "map", _same, np.add))
define(Op("sub", "map", _same, np.subtract))
for _name, _ref in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}.items():  # fmt: skip
    compare(_name, _ref)

define(Op("where", "map", _where, np.where))
define(Op("copy", "map", _same, lambda x: x, flops_per_element=0))
define(
    Op(
        "cast",
        "map",
        lambda x, dtype: Type(dtype, x.shape),
        lambda x, dtype: (x != 0) if dtype == "bool" else x.astype(NUMPY[dtype]),
        flops_per_element=0,
    )
)
