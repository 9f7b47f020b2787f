"""Activations that deserve a form of their own; the others come through PyTorch's
decompositions.
"""

from __future__ import annotations

from typing import Any

from batucada.ir.graph import Node
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


@translates("aten.tanh_backward.default")
def _tanh_backward(grad: Node, y: Node) -> Node:
    """grad * (1 - y²)"""
    return make("mul", grad, make("sub", one(y), make("mul", y, y)))


def _shifted(x: Node, dim: int) -> Node:
    return make("sub", x, reduce("amax", x, dim))


@translates("aten._softmax.default")
def _softmax(x: Node, dim: int, half_to_float: bool) -> Node:
    return _softmax_of(widen(x) if half_to_float else x, dim)


@in_single
def _softmax_of(x: Node, dim: int) -> Node:
    weights = make("exp", _shifted(x, dim))
    return make("div", weights, reduce("sum", weights, dim))


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
