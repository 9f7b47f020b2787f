"""Moves the permutation that makes a channels-last tensor channels-first towards its last reader.

Convolutions and pooling work on channels-last tensors and give them back channels-first.  What
comes after, elementwise operations and reductions, is as well done before that permutation; where
it meets the inverse one of the next convolution, both vanish.  So a network of images is
channels-last from its first convolution to its last.
"""

from __future__ import annotations

from batucada.ir.access import nontrivial
from batucada.ir.graph import Node
from batucada.ops import OPS, make
from batucada.ops.view import permute, reshape

_RANKS = (4, 5)


def _first(rank: int) -> tuple[int, ...]:
    """[N, *spatial, C] -> [N, C, *spatial]"""
    return (0, rank - 1, *range(1, rank - 1))


def _last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def is_channels_order(dims: tuple[int, ...]) -> bool:
    return len(dims) in _RANKS and dims in (_first(len(dims)), _last(len(dims)))


def _is_first(node: Node) -> bool:
    rank = len(node.type.shape)
    return node.op == "permute" and rank in _RANKS and node.attr("dims") == _first(rank)


def _turned(node: Node, rank: int) -> Node:
    """An argument of a map of channels-first tensors, channels-last."""
    if _is_first(node):
        return node.args[0]
    shape = node.type.shape
    if not shape:
        return node
    whole = reshape(node, [*[1] * (rank - len(shape)), *shape])
    return permute(whole, _last(rank))


def permute_after_map(node: Node) -> Node | None:
    """map(first(x), y) -> first(map(x, last(y)))"""
    if OPS[node.op].kind != "map" or not any(
        _is_first(arg) and arg.type.shape == node.type.shape for arg in node.args
    ):
        return None
    rank = len(node.type.shape)
    args = [_turned(arg, rank) for arg in node.args]
    return permute(make(node.op, *args, **dict(node.attrs)), _first(rank))


def permute_after_reduce(node: Node) -> Node | None:
    """reduce(first(x), dims) -> first(reduce(x, where these dims lie))"""
    if OPS[node.op].kind != "reduce" or not _is_first(node.args[0]):
        return None
    order = _first(len(node.type.shape))
    dims = tuple(sorted(order[d] for d in node.integers("dims")))
    return permute(make(node.op, node.args[0].args[0], dims=dims), order)


def permute_after_slice(node: Node) -> Node | None:
    """slice(first(x), dim) -> first(slice(x, where this dim lies)), and so for pad and cat"""
    if node.op not in ("slice", "pad", "cat") or not all(map(_is_first, node.args)):
        return None
    order = _first(len(node.type.shape))
    attrs = dict(node.attrs)
    if node.op == "pad":
        for key in ("low", "high"):
            amounts = node.integers(key)
            attrs[key] = tuple(amounts[order.index(d)] for d in range(len(order)))
    else:
        attrs["dim"] = order[node.integer("dim")]
    return permute(make(node.op, *(arg.args[0] for arg in node.args), **attrs), order)


def permute_of_ones(node: Node) -> Node | None:
    """permute(x) -> reshape(x) where only extents of 1 change places; matrices are left alone"""
    if node.op != "permute" or len(node.type.shape) < 3:
        return None
    source, dims = node.args[0], node.integers("dims")
    kept = [d for d in dims if source.type.shape[d] != 1]
    if kept != sorted(kept) or not nontrivial(source.type.shape):
        return None
    return reshape(source, node.type.shape)


RULES = (permute_after_map, permute_after_reduce, permute_after_slice, permute_of_ones)
