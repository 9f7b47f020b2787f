"""Computes no more of a value than what is read of it.

Where every reader of a value takes the same small slice of it, the slice is taken of the value's
arguments instead.  So of a bidirectional recurrence whose last output alone is used, the steps of
the backward direction that do not lead to it vanish, and the last layers of a transformer work on
the one row that its head reads.  Rounding may differ: a product of fewer rows has other tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from batucada.ir.access import VIEWS
from batucada.ir.graph import Attr, Graph, Node
from batucada.ops import OPS, like, make, with_args
from batucada.passes.rewrite import substitute

_PART = 4  # a slice is small if the whole is so many times larger: fusing with a product is lost


@dataclass(frozen=True, slots=True)
class _Window:
    """The attributes of a slice."""

    dim: int
    start: int
    stop: int
    step: int

    @property
    def count(self) -> int:
        return -(-(self.stop - self.start) // self.step)

    def of(self, node: Node) -> Node:
        return make(
            "slice", node, dim=self.dim, start=self.start, stop=self.stop, step=self.step
        )  # fmt: skip


def slice_early(graph: Graph) -> Graph:
    """slice(f(x)) -> f(slice(x)) where nothing else of f(x) is read"""
    while windows := _windows(graph):
        new: dict[Node, Node] = {node: node for node in graph.inputs}
        for node in graph.nodes:
            with like(node):
                new[node] = _built(node, windows, new)
        graph = substitute(graph, new)
    return graph


def _windows(graph: Graph) -> dict[Node, _Window]:
    """What to compute of the values of which only a part is read."""
    outputs = {out.node for out in graph.outputs}
    read: dict[Node, set[_Window | None]] = {node: set() for node in (*graph.inputs, *graph.nodes)}
    found: dict[Node, _Window] = {}
    for node in reversed(graph.nodes):
        window = next(iter(read[node]), None) if len(read[node]) == 1 else None
        if window is not None and node not in outputs and _passes(node, window):
            found[node] = window
        for number, arg in enumerate(node.args):
            read[arg].add(_read_of(node, number, found.get(node)))
    for node in graph.nodes:  # a slice of an input may as well be taken of a view of it
        if node in found and node.op in VIEWS and node.args[0] not in found:
            del found[node]
    return found


def _read_of(node: Node, number: int, window: _Window | None) -> _Window | None:
    """What the node reads of one of its arguments, None for all of it."""
    if window is not None:
        return _moved(node, number, window)
    if node.op != "slice":
        return None
    own = _Window(*(node.integer(key) for key in ("dim", "start", "stop", "step")))
    return own if 0 < own.count * _PART <= node.args[0].type.shape[own.dim] else None


def _passes(node: Node, window: _Window) -> bool:
    """Whether the slice may as well be taken of the arguments."""
    dim, rank = window.dim, len(node.type.shape)
    if node.op == "matmul":
        return dim != rank - 1  # a weight is left whole
    if node.op == "reshape":
        return _below_reshape(node, window) is not None
    if node.op == "cat":
        return dim != node.integer("dim")
    if node.op == "check_index":
        return False  # it looks at every index
    # a reduction leaves one place along its dimensions, and no slice of that is small
    return node.op in ("permute", "expand") or OPS[node.op].kind in ("map", "reduce")


def _moved(node: Node, number: int, window: _Window) -> _Window | None:
    """The slice of an argument, None for all of it."""
    if node.op == "reshape":
        return _below_reshape(node, window)
    dim, shape = window.dim, node.args[number].type.shape
    if node.op == "permute":
        dim = node.integers("dims")[dim]
    elif node.op == "matmul" and number == 1 and dim == len(node.type.shape) - 2:
        return None
    else:
        dim -= len(node.type.shape) - len(shape)
    if dim < 0 or shape[dim] == 1:
        return None
    return _Window(dim, window.start, window.stop, window.step)


def _below_reshape(node: Node, window: _Window) -> _Window | None:
    """Where the dimension is one of the source's, too, or one place is taken of it and it is the
    last in one of the source's: [A, B] at [:, b] is [A * B] at [b::B].
    """
    source, shape = node.args[0].type.shape, node.type.shape
    if not node.type.size:
        return None
    extent, before = shape[window.dim], math.prod(shape[: window.dim])
    for dim, size in enumerate(source):
        behind = math.prod(source[dim + 1 :])
        if size == extent and math.prod(source[:dim]) == before:
            return _Window(dim, window.start, window.stop, window.step)
        if window.count == 1 and size > extent and behind * extent * before == node.type.size:
            at_once = before % math.prod(source[:dim]) == 0
            return _Window(dim, window.start, size, extent) if at_once else None
    return None


def _built(node: Node, windows: dict[Node, _Window], new: dict[Node, Node]) -> Node:
    window = windows.get(node)
    if node.op == "slice" and node.args[0] in windows:
        return new[node.args[0]]
    if window is None:
        return with_args(node, [new[arg] for arg in node.args])
    args: list[Node] = []
    for number, arg in enumerate(node.args):
        part = None if arg in windows else _moved(node, number, window)
        args.append(part.of(new[arg]) if part is not None else new[arg])
    attrs: dict[str, Attr] = dict(node.attrs)
    if "shape" in attrs:
        extents = enumerate(node.type.shape)
        attrs["shape"] = tuple(window.count if i == window.dim else e for i, e in extents)
    return make(node.op, *args, **attrs)
