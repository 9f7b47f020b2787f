"""Embedding as a product with the one-hot matrix of its indices: an index never becomes an address.

Exact, and cheap for small vocabularies; its cost grows with the number of rows of the table.
"""

from __future__ import annotations

from batucada.ir.graph import Node
from batucada.ops.base import make, translates
from batucada.ops.contract import matmul
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked, one_hot
from batucada.ops.view import permute, reshape


def _hits(indices: Node, rows: int, like: Node) -> Node:
    """1 where row t's index is v, else 0: [T, rows] in the dtype of `like`."""
    return cast(one_hot(checked(reshape(indices, [-1]), rows), 1, rows), like.type.dtype)


@translates("aten.embedding.default")
def _embedding(
    weight: Node, indices: Node, padding: int = -1, scale: bool = False, sparse: bool = False
) -> Node:
    rows, width = weight.type.shape
    return reshape(matmul(_hits(indices, rows, weight), weight), [*indices.type.shape, width])


@translates("aten.embedding_dense_backward.default")
def _embedding_backward(grad: Node, indices: Node, rows: int, padding: int, scale: bool) -> Node:
    """The sum of the gradients of each row's uses; the padding row gets none."""
    hits = _hits(indices, rows, grad)
    if padding >= 0:
        used = make("ne", make("iota", size=rows), scalar(padding, "i64"))
        hits = make("where", used, hits, scalar(0, grad.type.dtype))
    return matmul(permute(hits, (1, 0)), reshape(grad, [-1, grad.type.shape[-1]]))
