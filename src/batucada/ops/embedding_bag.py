"""Embedding bags: sums, means or maxima of rows of a table, without the rows in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batucada.ir.graph import Node
from batucada.ops.base import make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked
from batucada.ops.scan import scan
from batucada.ops.scatter import identity, put
from batucada.ops.view import aten_slice, expand, reshape

SUM, MEAN, MAX = 0, 1, 2  # PyTorch's numbers of the modes


def _bag_of(places: int, offsets: Node) -> Node:
    """i64 [places]: the bag of each place; bags begin at the offsets, and may be empty"""
    ones = full(offsets.type.shape, 1, "i64")
    begun = put(full((places + 1,), 0, "i64"), ones, [cast(offsets, "i64")], (0,), "add")
    number = make("sub", scan(begun, 0, "add"), scalar(1, "i64"))
    return aten_slice(number, 0, 0, places)


@dataclass(frozen=True)
class _Bags:
    """Which row of the table each place reads, and for which bag."""

    index: Node  # i64 [places, 1]
    bag: Node  # i64 [places, 1]
    counts: Node  # bool [places, 1]: it is not the padding

    def rows_of(self, table: Node) -> Node:
        return make("take", table, self.index, dims=(0,))

    def of_bag(self, value: Node) -> Node:
        return make("take", value, self.bag, dims=(0,))


def _bags(index: Node, bag: Node, rows: int, padding: int) -> _Bags:
    index = checked(reshape(index, (-1, 1)), rows)
    none = scalar(padding if padding >= 0 else rows, "i64")
    return _Bags(index, reshape(cast(bag, "i64"), (-1, 1)), make("ne", index, none))


@translates("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def _embedding_bag(
    weight: Node,
    indices: Node,
    offsets: Node,
    scale: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    per_sample: Node | None = None,
    include_last: bool = False,
    padding: int = -1,
) -> tuple[Node, Node, Node, Node]:
    """The bags [B, width]; the bag of each place; the places in each bag; the rows of the maxima"""
    count = offsets.type.shape[0] - int(include_last)
    offsets = aten_slice(offsets, 0, 0, count)
    (rows, width), dtype = weight.type.shape, weight.type.dtype
    bag = _bag_of(indices.type.size, offsets)
    bags = _bags(indices, bag, rows, padding)
    held = put(full((count, 1), 0, "i64"), cast(bags.counts, "i64"), [bags.bag], (0,), "add")
    if mode == MAX:
        out, greatest = _greatest(weight, bags, held, count)
    else:
        value = bags.rows_of(weight)
        if per_sample is not None:
            value = make("mul", value, reshape(per_sample, (-1, 1)))
        value = make("where", bags.counts, value, scalar(0, dtype))
        out = put(full((count, width), 0, dtype), value, [bags.bag], (0,), "add")
        if mode == MEAN:
            out = make("div", out, cast(make("maximum", held, scalar(1, "i64")), dtype))
        greatest = full((count, width), 0, "i64")
    kind = indices.type.dtype
    return out, cast(bag, kind), cast(reshape(held, (count,)), kind), cast(greatest, kind)


def _greatest(weight: Node, bags: _Bags, held: Node, count: int) -> tuple[Node, Node]:
    """The maxima of the bags, 0 for an empty one, and the rows they stand in, the first of equal
    ones."""
    width, dtype, places = weight.type.shape[1], weight.type.dtype, bags.index.type.shape[0]
    shape, lowest = (count, width), identity("maximum", dtype)
    value = make("where", bags.counts, bags.rows_of(weight), scalar(lowest, dtype))
    out = put(full(shape, lowest, dtype), value, [bags.bag], (0,), "maximum")
    hit = make("and", make("eq", value, bags.of_bag(out)), bags.counts)
    ramp = reshape(make("iota", size=places), (places, 1))
    where = make("where", hit, ramp, scalar(places, "i64"))
    first = put(full(shape, places, "i64"), where, [bags.bag], (0,), "minimum")
    row = make("take", expand(bags.index, (places, width)), first, dims=(0,))
    some = make("gt", held, scalar(0, "i64"))
    return make("where", some, out, scalar(0, dtype)), make("where", some, row, scalar(0, "i64"))


@translates("aten._embedding_bag_dense_backward.default")
def _embedding_bag_backward(
    grad: Node,
    indices: Node,
    bag: Node,
    held: Node,
    greatest: Node,
    rows: int,
    scale: bool,
    mode: int,
    per_sample: Node | None,
    padding: int = -1,
) -> Node:
    """The sum of the gradients of each row's uses"""
    dtype, (count, width) = grad.type.dtype, grad.type.shape
    zeros, held = full((rows, width), 0, dtype), reshape(cast(held, "i64"), (count, 1))
    if mode == MAX:
        own = make("where", make("gt", held, scalar(0, "i64")), grad, scalar(0, dtype))
        return put(zeros, own, [cast(greatest, "i64")], (0,), "add")
    bags = _bags(indices, bag, rows, padding)
    if mode == MEAN:
        grad = make("div", grad, cast(make("maximum", held, scalar(1, "i64")), dtype))
    value = bags.of_bag(grad)
    if per_sample is not None:
        value = make("mul", value, reshape(per_sample, (-1, 1)))
    if scale:
        ones = full(bags.index.type.shape, 1, dtype)
        uses = put(full((rows, 1), 0, dtype), ones, [bags.index], (0,), "add")
        value = make("div", value, bags.rows_of(uses))
    value = make("where", bags.counts, value, scalar(0, dtype))
    return put(zeros, value, [bags.index], (0,), "add")


@translates("aten._embedding_bag_backward.default")
def _bag_backward(
    grad: Node,
    indices: Node,
    offsets: Node,
    bag: Node,
    held: Node,
    greatest: Node,
    rows: int,
    scale: bool,
    mode: int,
    sparse: bool,
    per_sample: Node | None,
    padding: int = -1,
) -> Node:
    """A sparse gradient is a dense one here."""
    return _embedding_bag_backward(
        grad, indices, bag, held, greatest, rows, scale, mode, per_sample, padding
    )


@translates("aten._embedding_bag_per_sample_weights_backward.default")
def _per_sample_backward(
    grad: Node, weight: Node, indices: Node, offsets: Node, bag: Node, *rest: Any
) -> Node:
    """The product of each place's row with the gradient of its bag"""
    padding = rest[1] if len(rest) > 1 else -1
    bags = _bags(indices, bag, weight.type.shape[0], padding)
    product = make("mul", bags.rows_of(weight), bags.of_bag(grad))
    total = make("sum", product, dims=(1,))
    total = make("where", bags.counts, total, scalar(0, grad.type.dtype))
    return reshape(total, [bags.index.type.shape[0]])
