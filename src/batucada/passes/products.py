"""The products of an unrolled recurrence that may as well be one.

Each step adds a product of a few rows to the gradient of every weight: one product over the rows of
all steps reads and writes the gradient once, not once a step.  And each step multiplies its part of
the input by the same weight: where a part is one row, little else than reading the weight takes
time, and one product reads it once.
"""

from __future__ import annotations

from batucada.ir.graph import Graph, Node, Section
from batucada.ops import like, make, with_args
from batucada.ops.view import aten_slice, permute, reshape
from batucada.passes.rewrite import substitute

_SHORT = 64  # steps of K up to which a product is worth joining to others
_SWAP = (1, 0)


def join_products(graph: Graph) -> Graph:
    """a @ b + c @ d + ... + x -> cat(a, c, ...) @ cat(b, d, ...) + x"""
    users = graph.users()
    kept = {out.node for out in graph.outputs} | {n for n, found in users.items() if len(found) > 1}
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    fired = False
    for node in graph.nodes:
        products, others = _terms(node, kept) if _is_whole(node, users, kept) else ([], [])
        if len(products) < 2:
            new[node] = with_args(node, [new[arg] for arg in node.args])
            continue
        fired = True
        with like(node):
            total = _joined([[new[arg] for arg in product.args] for product in products])
            for other in others:
                total = make("add", total, new[other])
        new[node] = total
    return substitute(graph, new) if fired else graph


def _is_sum(node: Node) -> bool:
    kind = node.type
    matrix = node.op == "add" and len(kind.shape) == 2 and kind.dtype in ("f32", "f64")
    return matrix and all(arg.type == kind for arg in node.args)


def _is_whole(node: Node, users: dict[Node, list[Node]], kept: set[Node]) -> bool:
    """A sum that is no term of another one."""
    return _is_sum(node) and (node in kept or not any(_is_sum(user) for user in users[node]))


def _terms(root: Node, kept: set[Node]) -> tuple[list[Node], list[Node]]:
    """Short products that nothing else reads, and all other terms, in order."""
    products: list[Node] = []
    others: list[Node] = []
    stack = list(reversed(root.args))
    while stack:
        node = stack.pop()
        if node not in kept and _is_sum(node) and node.section == root.section:
            stack += reversed(node.args)
        elif node not in kept and node.op == "matmul" and node.args[0].type.shape[-1] <= _SHORT:
            products.append(node)
        else:
            others.append(node)
    return products, others


def _joined(pairs: list[list[Node]]) -> Node:
    left, right = zip(*pairs, strict=True)
    return make("matmul", _side_by_side(left, 1), _side_by_side(right, 0))


def _side_by_side(parts: tuple[Node, ...], dim: int) -> Node:
    """Turned parts are put together before they are turned: no rows are taken apart."""
    if all(part.op == "permute" and part.attr("dims") == _SWAP for part in parts):
        return permute(make("cat", *(part.args[0] for part in parts), dim=1 - dim), _SWAP)
    return make("cat", *parts, dim=dim)


_Whole = tuple[Node, int, Node, Section]
"""What all parts of a product have in common: x, its dimension of parts, w, and the section."""


def join_steps(graph: Graph) -> Graph:
    """x[0] @ w, x[1] @ w, ... -> (x @ w)[0], (x @ w)[1], ... for all rows of x"""
    found: dict[_Whole, dict[int, Node]] = {}
    for node in graph.nodes:
        part = _row(node.args[0]) if node.op == "matmul" else None
        if part is not None:
            x, dim, number = part
            found.setdefault((x, dim, node.args[1], node.section), {})[number] = node
    parts = {
        product: (whole, number)
        for whole, products in found.items()
        if 1 < len(products) == whole[0].type.shape[whole[1]]
        for number, product in products.items()
    }
    return _with_steps_joined(graph, parts) if parts else graph


def _row(row: Node) -> tuple[Node, int, int] | None:
    """(x, dimension, number) of a matrix that is one row of x."""
    taken = row.args[0] if row.op == "reshape" else row
    if taken.op != "slice" or taken.integer("stop") != taken.integer("start") + 1:
        return None
    x, dim = taken.args[0], taken.integer("dim")
    steps, depth = x.type.shape[dim], row.type.shape[-1]
    is_row = row.type.shape == (1, depth) and x.type.shape[-1] == depth
    return (x, dim, taken.integer("start")) if is_row and x.type.size == steps * depth else None


def _with_steps_joined(graph: Graph, parts: dict[Node, tuple[_Whole, int]]) -> Graph:
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    joined: dict[_Whole, Node] = {}
    for node in graph.nodes:
        if node not in parts:
            new[node] = with_args(node, [new[arg] for arg in node.args])
            continue
        whole, number = parts[node]
        x, dim, w, _ = whole
        with like(node):
            if whole not in joined:
                product = make(
                    "matmul", reshape(new[x], [x.type.shape[dim], w.type.shape[0]]), new[w]
                )
                joined[whole] = reshape(product, [*x.type.shape[:-1], w.type.shape[-1]])
            part = aten_slice(joined[whole], dim, number, number + 1)
            new[node] = reshape(part, node.type.shape)
    return substitute(graph, new)
