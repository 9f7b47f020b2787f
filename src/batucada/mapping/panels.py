"""Right operands that lie as the tiles of their products read them, panel after panel.

A large right operand is copied to panels while its product runs.  A parameter that no step changes,
as in inference, is stored so from the start; what many products of a step read, such as a weight of
a recurrent network, is copied once for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from batucada.ir.access import below_views
from batucada.ir.graph import Graph, Node, graph_of
from batucada.ir.types import row_major
from batucada.mapping.tiling import PANEL, stored_tile, strides
from batucada.ops import OPS, like, make, with_args

_OFTEN = 4  # products that read it, from which on one copy for all of them pays
_LARGE_BYTES = 24 * 1024  # what is smaller stays in the first-level cache as it lies


def store_in_panels(graph: Graph) -> Graph:
    """`panel` is the width of the panels of such a parameter, and of a copy."""
    fixed = _fixed(graph)
    often = _often(graph, fixed)
    new: dict[Node, Node] = {}
    for node in graph.inputs:
        panel = (("panel", PANEL),) if node in fixed else ()
        new[node] = replace(node, attrs=(*node.attrs, *panel)) if panel else node
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        args = [new[arg] for arg in node.args]
        if _is_product(node) and node.args[1] in often and _may_read_panels(node):
            right = node.args[1]
            if right not in copies:
                with like(node):
                    copies[right] = make("panels", args[1], panel=PANEL)
            args[1] = copies[right]
        new[node] = with_args(node, args)
    outputs = [replace(out, node=new[out.node]) for out in graph.outputs]
    return graph_of(graph.name, [new[node] for node in graph.inputs], outputs)


def _fixed(graph: Graph) -> set[Node]:
    """Parameters that nothing changes, and that products alone read, as their right operand."""
    users, kept = graph.users(), {below_views(out.node) for out in graph.outputs}
    changed = {out.name for out in graph.outputs if out.role != "output"}

    def fits(node: Node) -> bool:
        readers = list(_readers(node, users))
        fitting = all(_is_product(user) and _fits(user, view) for user, view in readers)
        return fitting and bool(readers) and node not in kept

    return {n for n in graph.by_role("parameter") if n.name not in changed and fits(n)}


def _readers(node: Node, users: dict[Node, list[Node]]) -> Iterator[tuple[Node, Node]]:
    """What reads a value through views, each with the view that it reads."""
    for user in users[node]:
        if OPS[user.op].kind == "view":
            yield from _readers(user, users)
        else:
            yield user, node


def _fits(product: Node, view: Node) -> bool:
    reads_right = product.args[1] is view and _may_read_panels(product)
    return reads_right and _is_straight(view)


def _often(graph: Graph, fixed: set[Node]) -> set[Node]:
    """Large right operands of many products."""
    read = Counter(node.args[1] for node in graph.nodes if _is_product(node))
    large = {node for node, count in read.items() if count >= _OFTEN}
    return {n for n in large if n.type.bytes > _LARGE_BYTES and below_views(n) not in fixed}


def _is_product(node: Node) -> bool:
    return OPS[node.op].kind == "contract"


def _may_read_panels(product: Node) -> bool:
    return product.args[0] is not product.args[1] and stored_tile(product) is not None


def _is_straight(view: Node) -> bool:
    """It is the whole value below its views, element by element."""
    lying, shape = strides(view), view.type.shape
    if lying is None or view.type.size != below_views(view).type.size:
        return False
    steps = zip(lying, row_major(shape), shape, strict=True)
    return all(extent == 1 or step == straight for step, straight, extent in steps)
