"""What printing a graph costs."""

from __future__ import annotations

import tracemalloc

from batucada.ir.graph import Graph, Node, Output, graph_of, input_node
from batucada.ir.text import graph_hash, print_graph
from batucada.ir.types import Type
from batucada.ops import make


def _chain(length: int) -> Graph:
    x = input_node("x", Type("f32", (4, 8)), "input")
    node: Node = x
    for _ in range(length):
        node = make("exp", node)
    return graph_of("chain", [x], [Output("y", "output", node)])


def test_hashing_a_graph_holds_a_line_of_it_at_a_time() -> None:
    """A program that runs a large model is compared with it by that hash, and has no use for
    megabytes of text.
    """
    graph = _chain(5000)
    tracemalloc.start()
    graph_hash(graph)
    hashing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    text = print_graph(graph)
    printing = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert hashing < printing - len(text)
