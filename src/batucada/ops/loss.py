"""Losses whose PyTorch form looks elements up by class labels, as sums over a mask: a label
never becomes an address.
"""

from __future__ import annotations

from dataclasses import dataclass

from batucada.ir.graph import Node
from batucada.ops.activation import one
from batucada.ops.base import make, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked, one_hot
from batucada.ops.reduce import reduce
from batucada.ops.view import reshape, unsqueeze

MEAN, SUM = 1, 2  # torch.nn._reduction; 0 is none


@dataclass(frozen=True)
class _Labels:
    """Class labels [N] or [N, d1, ...] (or a bare one) against scores [N, C, d1, ...] (or [C])."""

    hit: Node  # bool, the scores' shape: true at each row's label, nowhere for an ignored row
    weight: Node | None  # the label's weight per row, keepdim along the classes
    class_dim: int


def _labels(scores: Node, target: Node, weight: Node | None, ignore: int) -> _Labels:
    dim = 0 if len(scores.type.shape) == 1 else 1
    classes = scores.type.shape[dim]
    hit = one_hot(checked(target, classes, ignore), dim, classes)
    if 0 <= ignore < classes:  # any other ignored label is no class: it hits nothing
        kept = make("ne", cast(target, "i64"), scalar(ignore, "i64"))
        hit = make("and", hit, unsqueeze(kept, dim))
    if weight is None:
        return _Labels(hit, None, dim)
    column = reshape(weight, [classes] + [1] * (len(scores.type.shape) - dim - 1))
    return _Labels(hit, column, dim)


def _row_weight(labels: _Labels, dtype: str) -> Node:
    """1, or the label's class weight; 0 for an ignored row.  Keepdim along the classes."""
    ones = cast(labels.hit, dtype)  # type: ignore[arg-type]
    weighted = ones if labels.weight is None else make("mul", ones, labels.weight)
    return reduce("sum", weighted, labels.class_dim)


@translates("aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default")
def _nll_forward(
    scores: Node, target: Node, weight: Node | None, reduction: int, ignore: int
) -> tuple[Node, Node]:
    labels = _labels(scores, target, weight, ignore)
    value = scores if labels.weight is None else make("mul", scores, labels.weight)
    picked = make("where", labels.hit, value, scalar(0, scores.type.dtype))
    rows = make("neg", reduce("sum", picked, labels.class_dim))
    total_weight = reduce("sum", _row_weight(labels, scores.type.dtype), None, keepdim=False)
    if reduction not in (MEAN, SUM):
        return reshape(rows, target.type.shape), scalar(0, scores.type.dtype)
    total = reduce("sum", rows, None, keepdim=False)
    return (make("div", total, total_weight) if reduction == MEAN else total), total_weight


@translates("aten.nll_loss_backward.default", "aten.nll_loss2d_backward.default")
def _nll_backward(
    grad: Node,
    scores: Node,
    target: Node,
    weight: Node | None,
    reduction: int,
    ignore: int,
    total_weight: Node,
) -> Node:
    labels = _labels(scores, target, weight, ignore)
    if reduction not in (MEAN, SUM):
        rows = list(target.type.shape)
        grad = reshape(grad, [*rows[: labels.class_dim], 1, *rows[labels.class_dim :]])
    if reduction == MEAN:
        grad = make("div", grad, total_weight)
    factor = make("neg", grad)
    if labels.weight is not None:
        factor = make("mul", factor, labels.weight)
    return make("where", labels.hit, factor, scalar(0, scores.type.dtype))


@translates("aten.binary_cross_entropy.default")
def _bce(x: Node, target: Node, weight: Node | None = None, reduction: int = MEAN) -> Node:
    """-(t * max(log x, -100) + (1 - t) * max(log(1 - x), -100)), as PyTorch clamps it"""
    floor = scalar(-100, x.type.dtype)
    log_x = make("maximum", make("log", x), floor)
    log_rest = make("maximum", make("log1p", make("neg", x)), floor)
    value = make(
        "sub", make("mul", make("sub", target, one(x)), log_rest), make("mul", target, log_x)
    )
    if weight is not None:
        value = make("mul", value, weight)
    return reduced(value, reduction)


def reduced(value: Node, reduction: int) -> Node:
    """The elements, their mean or their sum, by PyTorch's reduction code."""
    if reduction not in (MEAN, SUM):
        return value
    total = reduce("sum", value, None, keepdim=False)
    if reduction == SUM:
        return total
    return make("div", total, scalar(value.type.size, value.type.dtype))
