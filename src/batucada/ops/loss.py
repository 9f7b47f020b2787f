"""Losses over class labels, and binary cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

from batucada.ir.graph import Node
from batucada.ops.activation import one
from batucada.ops.base import make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked
from batucada.ops.reduce import reduce
from batucada.ops.view import reshape, unsqueeze

MEAN, SUM = 1, 2  # torch.nn._reduction; 0 is none


@dataclass(frozen=True)
class _Labels:
    """Class labels [N] or [N, d1, ...] (or a bare one) against scores [N, C, d1, ...] (or [C])."""

    column: Node  # i64, the labels with an extent of 1 for the classes
    kept: Node  # bool, of that shape: the label counts
    weight: Node | None  # of each class, [C, 1, ...], to be broadcast with the scores
    class_dim: int

    def of_label(self, value: Node) -> Node:
        """value[n, label[n]], zero where the label is ignored; value has the scores' rank."""
        rest = value.type.shape[: self.class_dim] + value.type.shape[self.class_dim + 1 :]
        if not value.type.size:
            return full(self.column.type.shape if rest else (1,), 0, value.type.dtype)
        found = make("take", value, self.column, dims=(self.class_dim,))
        return make("where", self.kept, found, scalar(0, value.type.dtype))


def _labels(scores: Node, target: Node, weight: Node | None, ignore: int) -> _Labels:
    rank = len(scores.type.shape)
    dim = 0 if rank == 1 else 1
    classes = scores.type.shape[dim]
    column = (
        unsqueeze(checked(target, classes, ignore), dim)
        if rank > 1
        else reshape(checked(target, classes, ignore), (1,))
    )
    kept = make("ne", column, scalar(ignore, "i64"))
    if weight is not None:
        weight = reshape(weight, [classes if d == dim else 1 for d in range(rank)])
    return _Labels(column, kept, weight, dim)


@translates("aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default")
def _nll_forward(
    scores: Node, target: Node, weight: Node | None, reduction: int, ignore: int
) -> tuple[Node, Node]:
    """-weight[label] * score[label] of each row, their sum, or that over the sum of the weights;
    and the sum of the weights
    """
    labels, dtype = _labels(scores, target, weight, ignore), scores.type.dtype
    rows = make("neg", labels.of_label(scores))
    if labels.weight is None:
        weights = cast(labels.kept, dtype)
    else:
        weights = labels.of_label(labels.weight)
        rows = make("mul", rows, weights)
    if reduction not in (MEAN, SUM):
        return reshape(rows, target.type.shape), scalar(0, dtype)
    total, total_weight = (reduce("sum", part, None, keepdim=False) for part in (rows, weights))
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
    """-weight[label] * grad at each row's label, 0 elsewhere"""
    labels = _labels(scores, target, weight, ignore)
    dim, classes = labels.class_dim, scores.type.shape[labels.class_dim]
    if reduction not in (MEAN, SUM):
        grad = reshape(grad, labels.column.type.shape)
    if reduction == MEAN:
        grad = make("div", grad, total_weight)
    factor = make("neg", grad)
    if labels.weight is not None:
        factor = make("mul", factor, labels.weight)
    position = reshape(
        make("iota", size=classes), [classes, *[1] * (len(scores.type.shape) - dim - 1)]
    )
    hit = make("and", make("eq", labels.column, position), labels.kept)
    return make("where", hit, factor, scalar(0, scores.type.dtype))


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
