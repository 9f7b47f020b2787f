"""Where a value is known to be zeros, from how it is made."""

from __future__ import annotations

from collections.abc import Callable

from batucada.ir.graph import Node

_FAR = 24  # steps back in the graph


def is_zero(node: Node) -> bool:
    while node.op in ("expand", "reshape", "permute"):
        node = node.args[0]
    return node.op == "constant" and node.attr("value") == 0


def first_zeros(node: Node, dim: int) -> int:
    """The index along `dim` from which on all elements are 0, the size of `dim` if none is
    known."""
    return _end(node, dim, _FAR, {})


def _end(node: Node, dim: int, far: int, known: dict[tuple[Node, int], int]) -> int:
    if (node, dim) not in known:
        known[node, dim] = 0 if is_zero(node) else _end_of(node, dim, far, known)
    return known[node, dim]


def _end_of(node: Node, dim: int, far: int, known: dict[tuple[Node, int], int]) -> int:
    size = node.type.shape[dim]
    if not far or node.op not in _UNDERSTOOD:
        return size
    if node.op == "permute":
        dim = node.integers("dims")[dim]
    ends = [
        _end(arg, dim, far - 1, known) if len(arg.type.shape) > dim and _is_whole(arg, node)
        else 0 if is_zero(arg) else size
        for arg in node.args
    ]  # fmt: skip
    return _UNDERSTOOD[node.op](node, dim, ends)


def _is_whole(arg: Node, node: Node) -> bool:
    """Not spread over the result."""
    return len(node.args) == 1 or node.op == "cat" or arg.type.shape == node.type.shape


def _of_cat(node: Node, dim: int, ends: list[int]) -> int:
    if node.integer("dim") != dim:
        return max(ends)
    found = start = 0
    for part, end in zip(node.args, ends, strict=True):
        found = start + end if end else found
        start += part.type.shape[dim]
    return found


def _of_slice(node: Node, dim: int, ends: list[int]) -> int:
    if node.integer("dim") != dim:
        return ends[0]
    kept = min(ends[0], node.integer("stop")) - node.integer("start")
    return max(0, -(-kept // node.integer("step")))


def _of_pad(node: Node, dim: int, ends: list[int]) -> int:
    if node.attr("value") != 0:
        return node.type.shape[dim]
    return node.integers("low")[dim] + ends[0] if ends[0] else 0


def _longest(node: Node, dim: int, ends: list[int]) -> int:
    return max(ends)


def _shortest(node: Node, dim: int, ends: list[int]) -> int:
    return min(ends)


_UNDERSTOOD: dict[str, Callable[[Node, int, list[int]], int]] = {
    "add": _longest, "sub": _longest, "neg": _longest, "permute": _longest, "mul": _shortest,
    "cat": _of_cat, "slice": _of_slice, "pad": _of_pad,
}  # fmt: skip
"""From the ends of the arguments that of the result."""
