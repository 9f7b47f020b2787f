"""The oracle: a graph evaluated node by node with numpy.  Slow, tiny, and the meaning of every
step's output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batucada.ir.graph import Graph, Node
from batucada.ops import OPS


def evaluate(graph: Graph, values: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """(role, name) -> value of every output.  `values` holds an array for each input; bf16 as
    float32.
    """
    known: dict[Node, np.ndarray] = {node: np.asarray(values[node.name]) for node in graph.inputs}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            args = [known[arg] for arg in node.args]
            known[node] = np.asarray(OPS[node.op].ref(*args, **dict(node.attrs)))
    return {(out.role, out.name): known[out.node] for out in graph.outputs}
