"""Counts of values by range."""

from __future__ import annotations

from typing import Any

from batucada.ir.graph import Node
from batucada.ops.base import ATEN, TypeRuleError, make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import reshape


@translates("aten.histc.default")
def _histc(x: Node, bins: int = 100, low: Any = 0, high: Any = 0) -> Node:
    """How many x lie in each of `bins` equal parts of low..high, whose last part includes high.

    Part i: i <= floor((x - low) * bins / (high - low)) < i + 1.
    """
    if low >= high:
        raise TypeRuleError("a histogram over the range of the values has no kernel")
    values = x if x.type.is_float else cast(x, "f64")
    dtype = values.type.dtype
    values = reshape(values, [x.type.size, 1])
    inside = make("ge", values, scalar(low, dtype))
    inside = make("and", inside, make("le", values, scalar(high, dtype)))
    values = make("where", inside, values, scalar(low, dtype))  # NaN is no integer
    scaled = make("mul", make("sub", values, scalar(low, dtype)), scalar(bins, dtype))
    part = cast(make("div", scaled, scalar(high - low, dtype)), "i64")
    part = make("minimum", part, scalar(bins - 1, "i64"))
    hit = make("and", inside, make("eq", part, reshape(make("iota", size=bins), [1, bins])))
    return cast(reduce("sum", cast(hit, "i64"), 0, keepdim=False), x.type.dtype)


@translates("aten.bincount.default")
def _bincount(x: Node, weights: Node | None = None, minlength: int = 0) -> Node:
    """How many x are 0, 1, ..., `minlength` - 1, or the sums of their weights.

    A number that is none of these is an error of the run: in PyTorch it makes the result longer.
    """
    if not minlength:
        raise TypeRuleError("bincount without minlength: its length depends on the numbers")
    if weights is None:
        weights = full(x.type.shape, 1, "i64")
    elif weights.type.dtype != "f32":
        weights = cast(weights, "f64")
    zeros = full((minlength,), 0, weights.type.dtype)
    return ATEN["aten.scatter_add.default"](zeros, 0, cast(x, "i64"), weights)
