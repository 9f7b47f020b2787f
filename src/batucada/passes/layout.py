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
from batucada.ops.elementwise import widens
from batucada.ops.view import permute
from batucada.passes.channels import is_channels_order
from batucada.passes.rewrite import substitute
from batucada.passes.simplify import simplify

_SWAP = (1, 0)


def store_weights_packed(graph: Graph) -> Graph:
    users = graph.users()
    wanted = {node.name: _wanted(node, users) for node in graph.by_role("parameter")}
    orders = {name: order for name, order in wanted.items() if order is not None}
    return _settle(_store_permuted(graph, orders)) if orders else graph


def _wanted(node: Node, users: dict[Node, list[Node]]) -> tuple[int, ...] | None:
    """The order of dimensions in which it is best stored, None as it is."""
    rank = len(node.type.shape)
    node = next((user for user in users[node] if widens(user)), node)
    if rank == 2:
        return _SWAP if _wants_transposition(node, users) else None
    kernel_last = (*range(2, rank), 1, 0)
    found = any(u.op == "permute" and u.attr("dims") == kernel_last for u in users[node])
    return kernel_last if rank > 2 and found else None


def _wants_transposition(node: Node, users: dict[Node, list[Node]]) -> bool:
    """It is the right operand of more products transposed than straight, look-ups of its rows among
    these; the forward ones count.
    """

    def as_right(value: Node) -> int:
        return sum(
            u.op == "matmul" and u.args[1] is value and u.section == "FWD" for u in users[value]
        )

    turned = [u for u in users[node] if u.op == "permute"]
    tables = [node, *(u for u in users[node] if u.op == "reshape")]
    looked_up = sum(u.op == "take" and u.args[0] is t for t in tables for u in users[t])
    return sum(map(as_right, turned)) > as_right(node) + looked_up


def _store_permuted(graph: Graph, orders: dict[str, tuple[int, ...]]) -> Graph:
    """Inputs, gradients and updates of these parameters, and of their state, are stored in this
    order of dimensions.
    """

    def order_of(node: Node) -> tuple[int, ...] | None:
        if node.role not in ("parameter", "state"):
            return None
        owner = next((n for n in orders if node.name == n or node.name.startswith(f"{n}__")), None)
        order = orders[owner] if owner is not None else None
        return order if order is not None and len(order) == len(node.type.shape) else None

    new: dict[Node, Node] = {}
    inputs: list[Node] = []
    changed: dict[str, tuple[int, ...]] = {}
    for node in graph.inputs:
        order = order_of(node)
        if order is None:
            stored = new[node] = node
        else:
            changed[node.name] = order
            turned = Type(node.type.dtype, tuple(node.type.shape[d] for d in order))
            stored = replace(node, type=turned, attrs=(*node.attrs, ("storage", order)))
            new[node] = permute(stored, [order.index(d) for d in range(len(order))])
        inputs.append(stored)
    for node in graph.nodes:
        new[node] = with_args(node, [new[arg] for arg in node.args])
        if node.op == "all_reduce" and (order := changed.get(str(node.attr("of")))) is not None:
            new[node] = _reduced_as_stored(new[node], order)
    outputs = [
        _turned(out, new[out.node], None if out.role == "output" else changed.get(out.name))
        for out in graph.outputs
    ]
    return graph_of(graph.name, inputs, outputs)


def _turned(out: Output, node: Node, order: tuple[int, ...] | None) -> Output:
    if order is None:
        return replace(out, node=node)
    with like(node):
        return replace(out, node=permute(node, order))


def _reduced_as_stored(node: Node, order: tuple[int, ...]) -> Node:
    with like(node.args[0]):
        stored = permute(node.args[0], order)
    with like(node):
        reduced = make("all_reduce", stored, **dict(node.attrs))
        return permute(reduced, [order.index(d) for d in range(len(order))])


def _settle(graph: Graph) -> Graph:
    """Move permutations through products and maps until they meet an input or each other."""
    while True:
        graph = simplify(graph)
        moved = _sink(graph)
        if moved is graph:
            return graph
        graph = moved


def _sink(graph: Graph) -> Graph:
    """permute(f(x, y)) -> f(permute(x), permute(y)) where nothing else reads f(x, y), and so on
    down through x and y.
    """
    users = graph.users()
    outputs = {out.node for out in graph.outputs}
    alone = {node for node, found in users.items() if len(found) == 1} - outputs
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    fired = False
    for node in graph.nodes:
        sunk = _sunk(node, alone, new) if node.op == "permute" else None
        fired = fired or sunk is not None
        new[node] = sunk or with_args(node, [new[arg] for arg in node.args])
    return substitute(graph, new) if fired else graph


def _sunk(node: Node, alone: set[Node], new: dict[Node, Node]) -> Node | None:
    """The permuted value, with the permutation below everything it may pass."""
    dims = node.integers("dims")
    turned: dict[Node, Node] = {}
    stack = [(node.args[0], False)]
    while stack:
        source, ready = stack.pop()
        if source in turned or source not in alone or not _passes(source, dims):
            continue
        if ready:
            with like(source):
                turned[source] = _through(source, dims, turned, new)
            continue
        stack.append((source, True))
        if source.op != "matmul":
            stack += [(arg, False) for arg in source.args if arg.type.shape]
    return turned.get(node.args[0])


def _passes(source: Node, dims: tuple[int, ...]) -> bool:
    """Whether a permutation of `source` may as well be done to its arguments."""
    if is_channels_order(dims):
        return False  # these go the other way
    if source.op == "matmul":
        return dims == _SWAP
    if source.op == "input" or OPS[source.op].kind != "map" or widens(source):
        return False
    return all(arg.type.shape in ((), source.type.shape) for arg in source.args)


def _through(
    source: Node, dims: tuple[int, ...], turned: dict[Node, Node], new: dict[Node, Node]
) -> Node:
    if source.op == "matmul":
        a, b = source.args
        return make("matmul", permute(new[b], _SWAP), permute(new[a], _SWAP))
    args = [
        turned.get(arg) or (permute(new[arg], dims) if arg.type.shape else new[arg])
        for arg in source.args
    ]
    return make(source.op, *args, **dict(source.attrs))
