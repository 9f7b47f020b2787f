"""The driver of rules.  A rule is `Node -> Node | None`; its docstring is its law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from batucada.ir.graph import Graph, Node, graph_of
from batucada.ir.verify import VerifyError
from batucada.ops import like, with_args

Rule = Callable[[Node], Node | None]

_MAX_ROUNDS = 20


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Apply the rules to every node, arguments first, until none fires."""
    settled: set[Node] = set()
    for _ in range(_MAX_ROUNDS):
        changed = _round(graph, rules, settled)
        if changed is graph:
            return graph
        graph = changed
    raise VerifyError(f"{graph.name}: the rules do not come to an end")


def _round(graph: Graph, rules: Sequence[Rule], settled: set[Node]) -> Graph:
    """No rule fires at a node that is `settled`: it and what is below it are as they were."""
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    fired = False
    for node in graph.nodes:
        moved = with_args(node, [new[arg] for arg in node.args])
        new[node] = moved if moved in settled else _rewritten(moved, rules)
        if new[node] is moved:
            settled.add(moved)
        fired = fired or new[node] is not moved
    return substitute(graph, new) if fired else graph


def _rewritten(node: Node, rules: Sequence[Rule]) -> Node:
    """What the rules from the first on make of a node, each of what the one before it made."""
    with like(node):
        for number, rule in enumerate(rules, start=1):
            result = rule(node)
            if result is None:
                continue
            if result.type != node.type:
                raise VerifyError(f"{rule.__name__}: {node.type} became {result.type} ({node.src})")
            return result if result.op == "input" else _rewritten(result, rules[number:])
    return node


def substitute(graph: Graph, new: dict[Node, Node]) -> Graph:
    outputs = [replace(out, node=new[out.node]) for out in graph.outputs]
    return graph_of(graph.name, graph.inputs, outputs)


def share(graph: Graph) -> Graph:
    """Common subexpressions: equal operations on equal arguments are computed once, where they
    come first.
    """
    first: dict[object, Node] = {}
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in graph.nodes:
        moved = with_args(node, [new[arg] for arg in node.args])
        key = (moved.op, moved.args, _exact(moved.attrs))
        new[node] = first.setdefault(key, moved)
    return substitute(graph, new)


def _exact(attrs: object) -> str:
    """1, 1.0 and True are equal in Python and are not the same constant."""
    return repr(attrs)
