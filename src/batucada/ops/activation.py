"""Activations that deserve a form of their own; the others come through PyTorch's
decompositions.
"""

from __future__ import annotations

import math
from typing import Any

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops.arithmetic import scaled
from batucada.ops.base import make, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast, floating, in_single, widen
from batucada.ops.reduce import reduce


def one(x: Node) -> Node:
    return scalar(1, x.type.dtype)


@translates("aten.relu.default")
def _relu(x: Node) -> Node:
    return make("maximum", x, scalar(0, x.type.dtype))


@translates("aten.threshold_backward.default")
def _threshold_backward(grad: Node, x: Node, threshold: Any) -> Node:
    return make(
        "where", make("le", x, scalar(threshold, x.type.dtype)), scalar(0, grad.type.dtype), grad
    )


@translates("aten.sigmoid.default")
def _sigmoid(x: Node) -> Node:
    """1 / (1 + exp(-x))"""
    x = floating(x)
    return make("reciprocal", make("add", one(x), make("exp", make("neg", x))))


@translates("aten.sigmoid_backward.default")
def _sigmoid_backward(grad: Node, y: Node) -> Node:
    """grad * y * (1 - y)"""
    return make("mul", grad, make("mul", y, make("sub", one(y), y)))


@translates("aten.silu.default")
@in_single
def _silu(x: Node) -> Node:
    """x sigmoid(x)"""
    return make("mul", x, _sigmoid(x))


@translates("aten.silu_backward.default")
@in_single
def _silu_backward(grad: Node, x: Node) -> Node:
    """grad s (1 + x (1 - s)), where s is the sigmoid of x"""
    s = _sigmoid(x)
    slope = make("add", one(x), make("mul", x, make("sub", one(x), s)))
    return make("mul", make("mul", grad, s), slope)


@translates("aten.tanh_backward.default")
def _tanh_backward(grad: Node, y: Node) -> Node:
    """grad * (1 - y²)"""
    return make("mul", grad, make("sub", one(y), make("mul", y, y)))


def _inner(x: Node) -> Node:
    """Of gelu's approximation: sqrt(2 / pi) (x + 0.044715 x³)"""
    cube = scaled(make("mul", make("mul", x, x), x), 0.044715)
    return scaled(make("add", x, cube), math.sqrt(2 / math.pi))


@translates("aten.gelu.default")
@in_single
def _gelu(x: Node, *, approximate: str = "none") -> Node:
    """x / 2 (1 + erf(x / sqrt(2))), or with a tanh in place of erf"""
    near = approximate == "tanh"
    inner = make("tanh", _inner(x)) if near else make("erf", scaled(x, math.sqrt(0.5)))
    return make("mul", scaled(x, 0.5), make("add", one(x), inner))


@translates("aten.gelu_backward.default")
@in_single
def _gelu_backward(grad: Node, x: Node, *, approximate: str = "none") -> Node:
    """grad (P(x) + x p(x)), where P is the normal distribution and p its density"""
    if approximate == "tanh":
        return make("mul", grad, _gelu_slope(x))
    distribution = scaled(make("add", one(x), make("erf", scaled(x, math.sqrt(0.5)))), 0.5)
    density = scaled(make("exp", scaled(make("mul", x, x), -0.5)), math.sqrt(0.5 / math.pi))
    return make("mul", grad, make("add", distribution, make("mul", x, density)))


def _gelu_slope(x: Node) -> Node:
    """(1 + t) / 2 + x / 2 (1 - t²) sqrt(2 / pi) (1 + 3 * 0.044715 x²), t the tanh of gelu"""
    t = make("tanh", _inner(x))
    steep = make("add", one(x), scaled(make("mul", x, x), 3 * 0.044715))
    curve = make("mul", scaled(x, 0.5), make("sub", one(x), make("mul", t, t)))
    rest = make("mul", curve, scaled(steep, math.sqrt(2 / math.pi)))
    return make("add", scaled(make("add", one(x), t), 0.5), rest)


def _shifted(x: Node, dim: int) -> Node:
    return make("sub", x, reduce("amax", x, dim))


@translates("aten._softmax.default")
def _softmax(x: Node, dim: int, half_to_float: bool) -> Node:
    return _softmax_of(widen(x) if half_to_float else x, dim)


@in_single
def _softmax_of(x: Node, dim: int) -> Node:
    weights = make("exp", _shifted(x, dim))
    return make("div", weights, reduce("sum", weights, dim))


@translates("aten._safe_softmax.default")
def _safe_softmax(x: Node, dim: int, dtype: DType | None = None) -> Node:
    """Zero where all along `dim` is masked with -inf."""
    x = x if dtype is None else cast(x, dtype)
    masked = cast(make("eq", x, scalar(-math.inf, x.type.dtype)), "u8")
    empty = cast(reduce("amin", masked, dim), "bool")
    return make("where", empty, scalar(0, x.type.dtype), _softmax_of(x, dim))


@translates("aten._log_softmax.default")
def _log_softmax(x: Node, dim: int, half_to_float: bool) -> Node:
    return _log_softmax_of(widen(x) if half_to_float else x, dim)


@in_single
def _log_softmax_of(x: Node, dim: int) -> Node:
    shifted = _shifted(x, dim)
    return make("sub", shifted, make("log", reduce("sum", make("exp", shifted), dim)))


@translates("aten._softmax_backward_data.default")
def _softmax_backward(grad: Node, y: Node, dim: int, dtype: Any) -> Node:
    """y * grad - y * sum(y * grad)"""
    grad, y = widen(grad), widen(y)
    product = make("mul", grad, y)
    inner = make("sub", product, make("mul", y, reduce("sum", product, dim)))
    return cast(inner, dtype)


@translates("aten._log_softmax_backward_data.default")
def _log_softmax_backward(grad: Node, y: Node, dim: int, dtype: Any) -> Node:
    """grad - softmax * sum(grad)"""
    grad, y = widen(grad), widen(y)
    inner = make("sub", grad, make("mul", make("exp", y), reduce("sum", grad, dim)))
    return cast(inner, dtype)


@translates("aten.hardshrink_backward.default", "aten.softshrink_backward.default")
def _shrink_backward(grad: Node, x: Node, threshold: Any) -> Node:
    """0 where -threshold <= x <= threshold, else grad"""
    dtype = x.type.dtype
    above = make("ge", x, scalar(-threshold, dtype))
    inside = make("and", above, make("le", x, scalar(threshold, dtype)))
    return make("where", inside, scalar(0, dtype), grad)
