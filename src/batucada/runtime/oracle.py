"""The oracle: a graph evaluated node by node with numpy.  Slow, tiny, and the meaning of every
step's output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batucada.ir.graph import Graph, Node
from batucada.ir.verify import VerifyError
from batucada.ops import OPS
from batucada.ops.host import set_evaluator
from batucada.runtime.host import evaluate_call

_TOLERANCE = 1e-4  # relative to the largest element: steps may reorder sums


set_evaluator(evaluate_call)


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


def check_step(name: str, before: Graph, after: Graph) -> None:
    """VerifyError unless both graphs give the same on random inputs; `name` is the step between."""
    values = _random_inputs(before)
    expected = evaluate(before, _stored(before, values))
    found = evaluate(after, _stored(after, values))
    for (role, symbol), value in expected.items():
        other = found.get((role, symbol))
        if other is None:
            raise VerifyError(f"{name}: the {role} {symbol} is gone")
        if role != "output":
            value = _as_in_pytorch(value, _storage(before, symbol))
            other = _as_in_pytorch(other, _storage(after, symbol))
        size = np.nanmax(np.abs(value), initial=1e-30, where=np.isfinite(value))
        if not np.allclose(value, other, rtol=0, atol=_TOLERANCE * size, equal_nan=True):
            raise VerifyError(f"{name}: the {role} {symbol} is another; see the dumps around it")


def _random_inputs(graph: Graph) -> dict[str, np.ndarray]:
    """Small numbers, and integers that pass every range check; states are not negative."""
    random = np.random.default_rng(0)
    bounds = [node.integer("size") for node in graph.nodes if node.op == "check_index"]
    values: dict[str, np.ndarray] = {}
    for node in graph.inputs:
        order = _storage(graph, node.name)
        shape = tuple(node.type.shape[order.index(d)] for d in range(len(order)))
        if not node.type.is_float:
            values[node.name] = random.integers(0, min(bounds, default=2), shape)
            continue
        value = 0.1 * random.standard_normal(shape)
        kind = np.float64 if node.type.dtype == "f64" else np.float32
        values[node.name] = (np.abs(value) if node.role == "state" else value).astype(kind)
    return values


def _stored(graph: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.transpose(_storage(graph, name)) for name, value in values.items()}


def _as_in_pytorch(value: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return value.transpose([order.index(d) for d in range(len(order))])


def _storage(graph: Graph, symbol: str) -> tuple[int, ...]:
    """The order of dimensions in which the graph stores this input."""
    node = graph.input(symbol)
    given = "storage" in dict(node.attrs)
    return node.integers("storage") if given else tuple(range(len(node.type.shape)))
