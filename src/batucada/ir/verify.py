"""Checks a graph after every step: order, types, and what is legal at its level."""

from __future__ import annotations

from batucada.ir.graph import Graph, Node
from batucada.ops.base import OPS, TypeRuleError


class VerifyError(AssertionError):
    """A step of the compiler broke its promise: our mistake, never the user's."""


def verify(graph: Graph) -> Graph:
    """The graph itself; VerifyError names the node that is wrong."""
    inputs = {node.name: node for node in graph.inputs}
    if len(inputs) != len(graph.inputs):
        names = [node.name for node in graph.inputs]
        raise VerifyError(f"{graph.name}: two inputs share a name among {names}")
    seen = set(graph.inputs)
    for node in graph.nodes:
        if not seen.issuperset(node.args):
            raise VerifyError(f"{node.op} uses a value before its definition ({node.src})")
        _check_type(node)
        seen.add(node)
    for out in graph.outputs:
        if out.node not in seen:
            raise VerifyError(f"output {out.name} is not computed")
        if out.role == "update" and inputs[out.name].type != out.node.type:
            raise VerifyError(
                f"update of {out.name} is {out.node.type}, not {inputs[out.name].type}"
            )
    return graph


def _check_type(node: Node) -> None:
    if node.op not in OPS:
        raise VerifyError(f"unknown operation {node.op} ({node.src})")
    try:
        inferred = OPS[node.op].infer(*(arg.type for arg in node.args), **dict(node.attrs))
    except TypeRuleError as error:
        raise VerifyError(f"{node.op}: {error} ({node.src})") from None
    if inferred != node.type:
        raise VerifyError(f"{node.op}: stored {node.type}, inferred {inferred} ({node.src})")
