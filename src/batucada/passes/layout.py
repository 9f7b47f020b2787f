"""How weights lie in memory: as the kernels want them, input features outermost.

A matrix that enters products as the transposed right operand is stored transposed, with what the
optimizer remembers of it.  The permutations this leaves in the graph are moved towards the inputs,
where they cancel.
"""

from __future__ import annotations

from dataclasses import replace

from batucada.ir.graph import Graph, Node, Output, graph_of
from batucada.ir.types import Type
from batucada.ops import OPS, like, make, with_args
from batucada.ops.view import permute
from batucada.passes.rewrite import substitute
from batucada.passes.simplify import simplify

_SWAP = (1, 0)


def store_weights_packed(graph: Graph) -> Graph:
    swapped = {
        node.name for node in graph.by_role("parameter") if _wants_transposition(node, graph)
    }
    return _settle(_store_transposed(graph, swapped)) if swapped else graph


def _wants_transposition(node: Node, graph: Graph) -> bool:
    """It is the right operand of more products transposed than straight; the forward ones count."""
    if len(node.type.shape) != 2:
        return False
    users = graph.users()

    def as_right(value: Node) -> int:
        return sum(
            u.op == "matmul" and u.args[1] is value and u.section == "FWD" for u in users[value]
        )

    turned = [u for u in users[node] if u.op == "permute"]
    return sum(map(as_right, turned)) > as_right(node)


def _store_transposed(graph: Graph, names: set[str]) -> Graph:
    """Inputs, gradients and updates of these parameters, and of their state, become their
    transposes.
    """

    def of(name: str) -> bool:
        return any(name == n or name.startswith(n + "__") for n in names)

    new: dict[Node, Node] = {}
    inputs: list[Node] = []
    for node in graph.inputs:
        stored = node
        if node.role in ("parameter", "state") and len(node.type.shape) == 2 and of(node.name):
            turned = Type(node.type.dtype, node.type.shape[::-1])
            stored = replace(node, type=turned, attrs=(*node.attrs, ("storage", _SWAP)))
        inputs.append(stored)
        new[node] = stored if stored is node else permute(stored, _SWAP)
    for node in graph.nodes:
        new[node] = with_args(node, [new[arg] for arg in node.args])
    changed = {node.name for node in inputs if ("storage", _SWAP) in node.attrs}
    outputs = [
        _turned(out, new[out.node], out.role != "output" and out.name in changed)
        for out in graph.outputs
    ]
    return graph_of(graph.name, inputs, outputs)


def _turned(out: Output, node: Node, turn: bool) -> Output:
    if not turn:
        return replace(out, node=node)
    with like(node):
        return replace(out, node=permute(node, _SWAP))


def _settle(graph: Graph) -> Graph:
    """Move permutations through products and maps until they meet an input or each other."""
    while True:
        graph = simplify(graph)
        moved = _sink(graph)
        if moved is graph:
            return graph
        graph = moved


def _sink(graph: Graph) -> Graph:
    """permute(f(x, y)) -> f(permute(x), permute(y)) where nothing else reads f(x, y)"""
    users = graph.users()
    outputs = {out.node for out in graph.outputs}
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    fired = False
    for node in graph.nodes:
        moved = with_args(node, [new[arg] for arg in node.args])
        source = node.args[0] if node.op == "permute" else None
        if source is not None and source not in outputs and len(users[source]) == 1:
            with like(source):
                sunk = _through(moved)
            if sunk is not None:
                moved, fired = sunk, True
        new[node] = moved
    return substitute(graph, new) if fired else graph


def _through(node: Node) -> Node | None:
    source, dims = node.args[0], node.integers("dims")
    if source.op == "matmul" and dims == _SWAP:
        a, b = source.args
        return make("matmul", permute(b, _SWAP), permute(a, _SWAP))
    if source.op == "input" or OPS[source.op].kind != "map":
        return None
    if any(a.type.shape not in ((), source.type.shape) for a in source.args):
        return None
    args = [permute(arg, dims) if arg.type.shape else arg for arg in source.args]
    return make(source.op, *args, **dict(source.attrs))
