"""Algebra that never changes a result's bits, but for folding constants as PyTorch would."""

from __future__ import annotations

import numpy as np

from batucada.ir.access import VIEWS
from batucada.ir.graph import Graph, Node
from batucada.ops import OPS, make
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast, widens
from batucada.ops.view import aten_slice, permute, reshape
from batucada.passes import channels
from batucada.passes.rewrite import rewrite, share


def simplify(graph: Graph) -> Graph:
    return share(rewrite(share(graph), RULES))


def _value(node: Node) -> float | int | bool | None:
    """The number a node is everywhere, if it is a constant one."""
    while node.op in ("expand", "reshape", "permute"):
        node = node.args[0]
    value = node.attr("value") if node.op == "constant" else None
    return value if isinstance(value, int | float | bool) else None


def fold_constants(node: Node) -> Node | None:
    """op(constants) -> constant"""
    if OPS[node.op].kind != "map" or node.op == "check_index" or node.type.shape:
        return None
    if any(arg.op != "constant" for arg in node.args) or node.type.dtype in ("bf16", "f16"):
        return None
    args = [OPS["constant"].ref(**dict(arg.attrs)) for arg in node.args]
    with np.errstate(all="ignore"):
        return scalar(OPS[node.op].ref(*args, **dict(node.attrs)).item(), node.type.dtype)


def permute_of_permute(node: Node) -> Node | None:
    """permute(permute(x, p), q) -> permute(x, p[q])"""
    if node.op != "permute" or node.args[0].op != "permute":
        return None
    inner, outer = node.args[0].integers("dims"), node.integers("dims")
    return permute(node.args[0].args[0], [inner[d] for d in outer])


def reshape_of_reshape(node: Node) -> Node | None:
    """reshape(reshape(x)) -> reshape(x)"""
    if node.op == "reshape" and node.args[0].op == "reshape":
        return reshape(node.args[0].args[0], node.type.shape)
    return None


def view_without_effect(node: Node) -> Node | None:
    """reshape, permute or expand to the same shape in the same order -> x"""
    if node.op in ("reshape", "expand") and node.args[0].type == node.type:
        return node.args[0]
    if node.op == "permute" and node.attr("dims") == tuple(range(len(node.type.shape))):
        return node.args[0]
    return None


def expand_before_map(node: Node) -> Node | None:
    """map(expand(x), y) -> map(x, y) where the result keeps its shape: maps broadcast by
    themselves
    """
    if OPS[node.op].kind != "map" or not any(arg.op == "expand" for arg in node.args):
        return None
    args = list(node.args)
    for i, arg in enumerate(args):
        if arg.op != "expand":
            continue
        bare = [*args[:i], arg.args[0], *args[i + 1 :]]
        if make(node.op, *bare, **dict(node.attrs)).type == node.type:
            args = bare
    return None if args == list(node.args) else make(node.op, *args, **dict(node.attrs))


def slice_of_cat(node: Node) -> Node | None:
    """slice(cat(x, y)) -> slice(x) where it lies within x"""
    if node.op != "slice" or node.args[0].op != "cat":
        return None
    cat, dim = node.args[0], node.integer("dim")
    if cat.integer("dim") != dim:
        return None
    start, stop = node.integer("start"), node.integer("stop")
    for part in cat.args:
        extent = part.type.shape[dim]
        if start >= 0 and stop <= extent:
            return aten_slice(part, dim, start, stop, node.integer("step"))
        start, stop = start - extent, stop - extent
    return None


def multiply_by_one(node: Node) -> Node | None:
    """x * 1 -> x;  x / 1 -> x"""
    if node.op not in ("mul", "div"):
        return None
    x, y = node.args
    if _value(y) == 1 and x.type == node.type:
        return x
    if node.op == "mul" and _value(x) == 1 and y.type == node.type:
        return y
    return None


def reduce_of_one(node: Node) -> Node | None:
    """sum, prod, amax or amin over extents of 1 -> x"""
    return (
        node.args[0] if OPS[node.op].kind == "reduce" and node.args[0].type == node.type else None
    )


def cast_to_same(node: Node) -> Node | None:
    """cast(x, same dtype) -> x"""
    return node.args[0] if node.op == "cast" and node.args[0].type == node.type else None


def widening_before_view(node: Node) -> Node | None:
    """f32(view(x)) -> view(f32(x)) for x of half precision: products read it where it lies"""
    if not widens(node) or node.args[0].op not in VIEWS - {"all_reduce"}:
        return None
    view = node.args[0]
    return make(view.op, cast(view.args[0], "f32"), **dict(view.attrs))


def narrow_what_was_widened(node: Node) -> Node | None:
    """half(f32(x)) -> x for x of that half precision"""
    if node.op != "cast" or not widens(node.args[0]):
        return None
    source = node.args[0].args[0]
    return source if source.type == node.type else None


RULES = (
    fold_constants,
    permute_of_permute,
    reshape_of_reshape,
    view_without_effect,
    expand_before_map,
    slice_of_cat,
    multiply_by_one,
    reduce_of_one,
    cast_to_same,
    widening_before_view,
    narrow_what_was_widened,
    *channels.RULES,
)
