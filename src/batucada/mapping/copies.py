"""Copies of what an output would share with another value, or an update would overwrite."""

from __future__ import annotations

from dataclasses import replace

from batucada.ir.graph import Graph, Node, Output, graph_of
from batucada.ir.types import Type
from batucada.mapping.buckets import lying_in
from batucada.ops import OPS, like, make, origin, with_args


def old_values(graph: Graph) -> tuple[Graph, set[Node]]:
    """What a buffer held before the forward pass changed it is copied where a later section reads
    it; returns the copies too.
    """
    users, changed = graph.users(), graph.changed_in_forward()
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in graph.inputs:
        if node.name in changed and _needed_later(node, users):
            with origin(node.src, "FWD"):
                new[node] = make("copy", node)
    copies = set(new.values()) - set(graph.inputs)
    if not copies:
        return graph, copies
    for node in graph.nodes:
        new[node] = with_args(node, [new[arg] for arg in node.args])
    outputs = [replace(out, node=new[out.node]) for out in graph.outputs]
    return graph_of(graph.name, graph.inputs, outputs), copies


def copied_updates(graph: Graph, updates: set[str]) -> tuple[Graph, set[Node]]:
    """These updates are copies, made when all that read the old value have done so."""
    outputs, copies = [], set[Node]()
    for out in graph.outputs:
        if out.role == "update" and out.name in updates:
            with like(out.node):
                out = replace(out, node=make("copy", out.node))
            copies.add(out.node)
        outputs.append(out)
    return graph_of(graph.name, graph.inputs, outputs), copies


def own_outputs(graph: Graph) -> Graph:
    """Each output is a value of its own, computed by a stage: two outputs of one value, an
    output that is an input, and one that a later section needs are copies; so is an update whose
    stage may read what it wrote."""
    users = graph.users()
    taken: set[Node] = set()
    outputs: dict[int, Output] = {}
    order = {"update": 0, "gradient": 1, "output": 2}
    for i, out in sorted(enumerate(graph.outputs), key=lambda item: order[item[1].role]):
        node = lying_in(out)
        virtual = node.op in ("input", "constant", "iota")
        reduced = node.op == "all_reduce"  # lies where the gradient lies
        closed = not virtual and OPS[node.op].kind in ("index", "attention")
        elsewhere = out.role == "update" and (reduced or closed)
        if (
            node in taken
            or virtual
            or elsewhere
            or (out.role == "output" and _needed_later(node, users))
        ):
            with origin(out.node.src, "OPT") if reduced else like(out.node):
                node = make("copy", out.node)
        taken.add(node)
        outputs[i] = replace(
            out, node=node if node.type == out.node.type else _reshaped(node, out.node.type)
        )
    return graph_of(graph.name, graph.inputs, [outputs[i] for i in range(len(outputs))])


def _reshaped(node: Node, type: Type) -> Node:
    with like(node):
        return make("reshape", node, shape=type.shape)


def _needed_later(node: Node, users: dict[Node, list[Node]]) -> bool:
    seen: set[Node] = set()
    todo = [node]
    while todo:
        for user in users[todo.pop()]:
            if user.section != "FWD":
                return True
            if user not in seen and OPS[user.op].kind in ("view", "map", "lookup"):
                seen.add(user)
                todo.append(user)
    return False
