"""Products of groups of rows with a matrix each, as mixtures of experts make them.

`offsets[e]` is the first row after group e; rows after the last group belong to none.  Where a
group ends is known only when the program runs, so every row meets every matrix and counts where it
belongs: E times the arithmetic of one group.  Beyond `_MOST_GROUPS` PyTorch does it (a host stage).
"""

from __future__ import annotations

from typing import Any

from batucada.ir.graph import Node
from batucada.ops.base import TypeRuleError, make, translates
from batucada.ops.contract import contract, matmul
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import permute, reshape

_MOST_GROUPS = 8


def _members(offsets: Node, rows: int) -> Node:
    """bool[rows, E]: row s is of group e"""
    (groups,) = offsets.type.shape
    if groups > _MOST_GROUPS:
        raise TypeRuleError(f"products of more than {_MOST_GROUPS} groups have no kernel: {groups}")
    row = reshape(make("iota", size=rows), [rows, 1])
    ends = reshape(cast(offsets, "i64"), [1, groups])
    group = reduce("sum", cast(make("ge", row, ends), "i64"), 1)
    return make("eq", group, reshape(make("iota", size=groups), [1, groups]))


def _spread(x: Node, members: Node) -> Node:
    """[S, K] -> [S, E, K], zero where the row is not of the group"""
    rows, width = x.type.shape
    hit = reshape(members, [*members.type.shape, 1])
    return make("where", hit, reshape(x, [rows, 1, width]), scalar(0, x.type.dtype))


def _by_row(x: Node, matrices: Node, members: Node) -> Node:
    """out[s] = sum over e of [s is of e] x[s] @ matrices[e]: [S, K] and [E, K, N] -> [S, N]"""
    return contract(_spread(x, members), matrices, k=2)


def _by_group(x: Node, y: Node, members: Node) -> Node:
    """out[e] = sum over the rows s of e of x[s]^T y[s]: [S, K] and [S, N] -> [E, K, N]"""
    rows, width = x.type.shape
    groups = members.type.shape[1]
    columns = reshape(permute(_spread(x, members), (1, 2, 0)), [groups * width, rows])
    return reshape(matmul(columns, y), [groups, width, y.type.shape[1]])


@translates("aten._grouped_mm.default")
def _grouped_mm(
    a: Node, b: Node, offsets: Node | None = None, bias: Node | None = None, dtype: Any = None
) -> Node:
    ranks = len(a.type.shape), len(b.type.shape)
    if offsets is None or bias is not None or ranks not in ((2, 3), (2, 2)):
        raise TypeRuleError(f"grouped product of {a.type} and {b.type}: rows in groups only")
    if ranks == (2, 2):  # the groups are of the dimension that is summed over
        a = permute(a, (1, 0))
        out = _by_group(a, b, _members(offsets, a.type.shape[0]))
    else:
        out = _by_row(a, b, _members(offsets, a.type.shape[0]))
    return out if dtype is None else cast(out, dtype)


@translates("transformers.grouped_mm_fallback.default")
def _fallback(x: Node, matrices: Node, offsets: Node) -> Node:
    """x[s] @ matrices[group of s]"""
    return _by_row(x, matrices, _members(offsets, x.type.shape[0]))


@translates("transformers.grouped_mm_fallback_backward.default")
def _fallback_backward(x: Node, matrices: Node, offsets: Node, grad: Node) -> tuple[Node, Node]:
    """grad[s] @ matrices[group of s]^T, and the sums of x[s]^T grad[s]"""
    members = _members(offsets, x.type.shape[0])
    return _by_row(grad, permute(matrices, (0, 2, 1)), members), _by_group(x, grad, members)
