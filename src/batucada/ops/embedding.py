"""Embedding: rows of a table, and the sum of the gradients that flow back to each row."""

from __future__ import annotations

from batucada.ir.graph import Node
from batucada.ops.base import make, translates
from batucada.ops.create import full, scalar
from batucada.ops.distance import p_norm
from batucada.ops.elementwise import cast
from batucada.ops.index import checked
from batucada.ops.view import reshape, unsqueeze


def _rows(indices: Node, rows: int) -> Node:
    """[*, 1]: the row for each place"""
    return unsqueeze(checked(indices, rows), len(indices.type.shape))


def _lined_up(table: Node, rank: int) -> Node:
    """[rows, width] -> [1, ..., rows, width] of `rank` dimensions"""
    return reshape(table, [*[1] * (rank - 2), *table.type.shape])


@translates("aten.embedding.default")
def _embedding(
    weight: Node, indices: Node, padding: int = -1, scale: bool = False, sparse: bool = False
) -> Node:
    """weight[indices]"""
    rows, width = weight.type.shape
    index = _rows(reshape(indices, indices.type.shape or (1,)), rows)
    rank = len(index.type.shape)
    taken = make("take", _lined_up(weight, rank), index, dims=(rank - 2,))
    return reshape(taken, (*indices.type.shape, width))


@translates("aten.embedding_renorm.default")
def _embedding_renorm(weight: Node, indices: Node, most: float, norm_type: float) -> Node:
    """Rows that are looked up and whose norm is more than `most` are scaled down to that."""
    rows = weight.type.shape[0]
    index = _rows(reshape(indices, (indices.type.size,)), rows)
    ones = full(index.type.shape, 1, weight.type.dtype)
    used = make("put", full((rows, 1), 0, weight.type.dtype), ones, index, dims=(0,), mode="add")
    norm = unsqueeze(p_norm(weight, norm_type), 1)
    limit = scalar(most, weight.type.dtype)
    scale = make("div", limit, make("add", norm, scalar(1e-7, weight.type.dtype)))  # as PyTorch
    is_long = make("and", make("gt", norm, limit), make("gt", used, scalar(0, weight.type.dtype)))
    return make("where", is_long, make("mul", weight, scale), weight)


@translates("aten.embedding_dense_backward.default")
def _embedding_backward(grad: Node, indices: Node, rows: int, padding: int, scale: bool) -> Node:
    """The sum of the gradients of each row's uses, by `scale` over their number; the padding row
    gets none.
    """
    shape, width, dtype = indices.type.shape or (1,), grad.type.shape[-1], grad.type.dtype
    index, grad = _rows(reshape(indices, shape), rows), reshape(grad, (*shape, width))
    rank = len(index.type.shape)
    if scale:
        ones = cast(make("eq", index, index), dtype)
        uses = make(
            "put",
            _lined_up(full((rows, 1), 0, dtype), rank),
            ones,
            index,
            dims=(rank - 2,),
            mode="add",
        )
        grad = make("div", grad, make("take", uses, index, dims=(rank - 2,)))
    if padding >= 0:
        used = make("ne", index, scalar(padding, "i64"))
        grad = make("where", used, grad, scalar(0, dtype))
    zeros = _lined_up(full((rows, width), 0, dtype), rank)
    return reshape(make("put", zeros, grad, index, dims=(rank - 2,), mode="add"), (rows, width))
