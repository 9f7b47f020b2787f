"""Margin losses over classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batucada.ir.graph import Node
from batucada.ops.activation import one
from batucada.ops.base import make, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked, one_hot
from batucada.ops.loss import MEAN, SUM, reduced
from batucada.ops.reduce import reduce
from batucada.ops.view import expand, reshape, unsqueeze


def _rows(x: Node) -> Node:
    """[C] -> [1, C]"""
    return unsqueeze(x, 0) if len(x.type.shape) < 2 else x


def _per_row(grad: Node, x: Node, reduction: int) -> Node:
    """The gradient of a row's sum of margins, [N, 1]: over C, and over N as well for a mean."""
    rows, classes = x.type.shape
    column = reshape(grad, [1, 1] if reduction in (MEAN, SUM) else [rows, 1])
    count = classes * rows if reduction == MEAN else classes
    return expand(make("div", column, scalar(count, grad.type.dtype)), (rows, 1))


@dataclass(frozen=True)
class _Margins:
    """A row's label against every class, [N, C]."""

    hit: Node  # the class is the row's label
    slack: Node  # margin - x[label] + x[class]
    active: Node  # the class counts: it is not the label and its slack is above 0


def _margins(x: Node, target: Node, margin: Any) -> _Margins:
    rows, classes = x.type.shape
    zero = scalar(0, x.type.dtype)
    hit = one_hot(checked(reshape(target, [rows]), classes), 1, classes)
    labelled = reduce("sum", make("where", hit, x, zero), 1)
    slack = make("add", make("sub", scalar(margin, x.type.dtype), labelled), x)
    return _Margins(hit, slack, make("and", make("gt", slack, zero), make("not", hit)))


def _label_weighted(value: Node, hit: Node, weight: Node | None) -> Node:
    """Rows of value [N, C] times the weight of their label"""
    if weight is None:
        return value
    chosen = make("where", hit, weight, scalar(0, weight.type.dtype))
    return make("mul", value, reduce("sum", chosen, 1))


@translates("aten.multi_margin_loss.default")
def _multi_margin(
    scores: Node,
    target: Node,
    p: Any = 1,
    margin: Any = 1,
    weight: Node | None = None,
    reduction: int = MEAN,
) -> Node:
    """Loss of a row with label y: sum over d != y of w[y] * max(0, margin - x[y] + x[d])^p / C

    scores [N, C] or [C], target [N] or [], p 1 or 2.
    """
    x = _rows(scores)
    found = _margins(x, target, margin)
    power = make("mul", found.slack, found.slack) if p == 2 else found.slack
    counted = make("where", found.active, power, scalar(0, x.type.dtype))
    total = reduce("sum", _label_weighted(counted, found.hit, weight), 1, keepdim=False)
    rows = make("div", total, scalar(x.type.shape[1], x.type.dtype))
    return reduced(reshape(rows, scores.type.shape[:-1]), reduction)


@translates("aten.multi_margin_loss_backward.default")
def _multi_margin_backward(
    grad: Node,
    scores: Node,
    target: Node,
    p: Any,
    margin: Any,
    weight: Node | None = None,
    reduction: int = MEAN,
) -> Node:
    x = _rows(scores)
    dtype = x.type.dtype
    found = _margins(x, target, margin)
    slope = make("mul", scalar(2, dtype), found.slack) if p == 2 else scalar(1, dtype)
    others = make("where", found.active, slope, scalar(0, dtype))
    others = _label_weighted(others, found.hit, weight)
    others = make("mul", others, _per_row(grad, x, reduction))
    own = make("neg", reduce("sum", others, 1))
    return reshape(make("where", found.hit, own, others), scores.type.shape)


@dataclass(frozen=True)
class _Pairs:
    """Every listed label of a row against every class: [row, place in the list, class]."""

    hit: Node  # the class is the label listed there
    slack: Node  # 1 - x[label] + x[class]
    active: Node  # the pair counts: a listed label, a class that is none, and slack above 0
    is_target: Node  # bool [row, class]: the class is among the row's labels


def _pairs(x: Node, listed: Node) -> _Pairs:
    classes = x.type.shape[1]
    zero, valid = scalar(0, x.type.dtype), unsqueeze(_before_first_end(listed), 2)
    hit = make("and", one_hot(checked(listed, classes, -1), 2, classes), valid)
    is_target = cast(reduce("amax", cast(hit, "u8"), 1, keepdim=False), "bool")
    wide = unsqueeze(x, 1)
    labelled = reduce("sum", make("where", hit, wide, zero), 2)
    slack = make("add", make("sub", one(x), labelled), wide)
    rest = make("and", valid, unsqueeze(make("not", is_target), 1))
    return _Pairs(hit, slack, make("and", make("gt", slack, zero), rest), is_target)


@translates("aten.multilabel_margin_loss_forward.default")
def _multilabel_margin(scores: Node, target: Node, reduction: int) -> tuple[Node, Node]:
    """Loss of a row with labels T: sum over t in T, d not in T of max(0, 1 - x[t] + x[d]) / C

    scores [N, C] or [C]; target, of the same shape, lists a row's labels up to the first -1.
    """
    x, listed = _rows(scores), _rows(cast(target, "i64"))
    pairs = _pairs(x, listed)
    counted = make("where", pairs.active, pairs.slack, scalar(0, x.type.dtype))
    classes = scalar(x.type.shape[1], x.type.dtype)
    rows = make("div", reduce("sum", counted, (1, 2), keepdim=False), classes)
    is_target = reshape(cast(pairs.is_target, x.type.dtype), target.type.shape)
    return reduced(reshape(rows, scores.type.shape[:-1]), reduction), is_target


@translates("aten.multilabel_margin_loss_backward.default")
def _multilabel_margin_backward(
    grad: Node, scores: Node, target: Node, reduction: int, is_target: Node
) -> Node:
    x, listed = _rows(scores), _rows(cast(target, "i64"))
    pairs = _pairs(x, listed)
    ones = cast(pairs.active, x.type.dtype)
    own = make("where", pairs.hit, reduce("sum", ones, 2), scalar(0, x.type.dtype))
    slope = reduce("sum", make("sub", ones, own), 1, keepdim=False)
    return reshape(make("mul", slope, _per_row(grad, x, reduction)), scores.type.shape)


def _before_first_end(listed: Node) -> Node:
    """bool [N, C]: the place lies before the row's first -1."""
    places = listed.type.shape[1]
    ramp = make("iota", size=places)
    ends = make("eq", listed, scalar(-1, "i64"))
    end = reduce("amin", make("where", ends, ramp, scalar(places, "i64")), 1)
    return make("lt", ramp, end)
