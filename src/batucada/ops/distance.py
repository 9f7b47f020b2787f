"""Distances between rows, |x - y|_p, and their gradients: 0 where the distance is.

No matrix of differences is ever stored.
"""

from __future__ import annotations

import math

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops.base import TypeRuleError, make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.scatter import put
from batucada.ops.view import expand, reshape


def p_norm(d: Node, p: float) -> Node:
    """Over the last dimension, which goes."""
    last, dtype = len(d.type.shape) - 1, d.type.dtype
    if not d.type.is_float or not d.type.shape[last]:
        raise TypeRuleError(f"distances of {d.type}")
    if p == 0:
        ones = cast(make("ne", d, scalar(0, dtype)), dtype)
        return reduce("sum", ones, last, keepdim=False)
    if p == 2:
        return make("sqrt", reduce("sum", make("mul", d, d), last, keepdim=False))
    size = make("abs", d)
    if p in (1, math.inf):
        return reduce("sum" if p == 1 else "amax", size, last, keepdim=False)
    power = reduce("sum", make("pow", size, scalar(p, dtype)), last, keepdim=False)
    return make("pow", power, scalar(1 / p, dtype))


def _slope(d: Node, norm: Node, grad: Node, p: float) -> Node:
    """grad d|d|/dd; `norm` and `grad` have a last dimension of extent 1."""
    dtype, size, sign = d.type.dtype, make("abs", d), make("sign", d)
    zero = scalar(0, dtype)
    if p == 0:
        return expand(zero, d.type.shape)
    if p == 1:
        return make("mul", grad, sign)
    if p == math.inf:
        return make("mul", grad, make("where", make("eq", size, norm), sign, zero))
    if p == 2:
        factor = make("div", make("mul", grad, d), norm)
    else:
        share = make("pow", make("div", size, norm), scalar(p - 1, dtype))
        factor = make("mul", make("mul", grad, sign), share)
    none = make("eq", norm, zero)
    if p < 1:
        none = make("or", none, make("eq", d, zero))
    return make("where", none, zero, factor)


def _at(x: Node, dim: int) -> Node:
    shape = list(x.type.shape)
    place = len(shape) + dim + 1
    return reshape(x, [*shape[:place], 1, *shape[place:]])


@translates("aten._cdist_forward.default")
def _cdist(x: Node, y: Node, p: float, _mode: int | None) -> Node:
    return p_norm(make("sub", _at(x, -2), _at(y, -3)), p)


@translates("aten._cdist_backward.default")
def _cdist_backward(grad: Node, x: Node, y: Node, p: float, norm: Node) -> Node:
    d = make("sub", _at(x, -2), _at(y, -3))
    slope = _slope(d, _at(norm, -1), _at(grad, -1), p)
    return reduce("sum", slope, len(d.type.shape) - 2, keepdim=False)


# ---- of the rows of one matrix: pair k of (0, 1), (0, 2), ..., (1, 2), ...


def _pairs(rows: int) -> tuple[Node, Node]:
    """i64 [pairs, 1]: the first and the second row of each pair."""
    count = rows * (rows - 1) // 2
    number = reshape(make("iota", size=count), [count, 1])
    wide: DType = "f64"
    middle = scalar(rows - 0.5, wide)
    left = make("mul", cast(number, wide), scalar(2.0, wide))
    root = make("sqrt", make("sub", scalar((rows - 0.5) ** 2 - 1, wide), left))
    first = cast(make("floor", make("sub", middle, root)), "i64")
    one = scalar(1, "i64")
    before = make("mul", first, make("sub", scalar(2 * rows - 1, "i64"), first))
    before = make("floor_div", before, scalar(2, "i64"))  # pairs of the rows before the first
    return first, make("add", make("sub", number, before), make("add", first, one))


def _differences(x: Node, pairs: tuple[Node, Node]) -> Node:
    return make("sub", *(make("take", x, rows, dims=(0,)) for rows in pairs))


@translates("aten._pdist_forward.default")
def _pdist(x: Node, p: float = 2) -> Node:
    rows = x.type.shape[0]
    if rows < 2:
        return full((0,), 0, x.type.dtype)
    return p_norm(_differences(x, _pairs(rows)), p)


@translates("aten._pdist_backward.default")
def _pdist_backward(grad: Node, x: Node, p: float, norm: Node) -> Node:
    nothing = full(x.type.shape, 0, x.type.dtype)
    if x.type.shape[0] < 2:
        return nothing
    first, second = _pairs(x.type.shape[0])
    slope = _slope(_differences(x, (first, second)), _at(norm, -1), _at(grad, -1), p)
    found = put(nothing, slope, [first], (0,), "add")
    return put(found, make("neg", slope), [second], (0,), "add")
