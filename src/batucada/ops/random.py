"""Operators that draw random numbers: recognised, to say what to do instead."""

from __future__ import annotations

from typing import Any

from batucada.ir.graph import Node
from batucada.ops.base import TypeRuleError, make, translates
from batucada.ops.create import scalar

_ADVICE = (
    "a compiled program draws no random numbers; use p=0 or .eval() for dropout, "
    "and give noise as an input"
)


@translates(
    "aten.bernoulli.default", "aten.bernoulli.p", "aten.bernoulli.float", "aten.bernoulli.Tensor",
    "aten.native_dropout.default", "aten.rand.default", "aten.rand_like.default",
    "aten.randn.default", "aten.randn_like.default", "aten.randint.low", "aten.randint.default",
    "aten.randint_like.default", "aten.randperm.default", "aten.uniform.default",
    "aten.normal.default", "aten.normal_functional.default", "aten.multinomial.default",
    "aten.exponential.default",
)  # fmt: skip
def _random(*_: Any, **__: Any) -> Node:
    raise TypeRuleError(_ADVICE)


def _rrelu_slope(x: Node, lower: Any, upper: Any, training: bool) -> Node:
    """(lower + upper) / 2, which the negative part is multiplied by in evaluation"""
    if training:
        raise TypeRuleError(_ADVICE)
    return scalar((lower + upper) / 2, x.type.dtype)


@translates("aten.rrelu_with_noise.default")
def _rrelu(
    x: Node, noise: Node, lower: Any = 1 / 8, upper: Any = 1 / 3, training: bool = False, *_: Any
) -> Node:
    slope = _rrelu_slope(x, lower, upper, training)
    return make("where", make("gt", x, scalar(0, x.type.dtype)), x, make("mul", x, slope))


@translates("aten.rrelu_with_noise_backward.default")
def _rrelu_backward(
    grad: Node, x: Node, noise: Node, lower: Any, upper: Any, training: bool, *_: Any
) -> Node:
    slope = _rrelu_slope(x, lower, upper, training)
    return make("where", make("gt", x, scalar(0, x.type.dtype)), grad, make("mul", grad, slope))
