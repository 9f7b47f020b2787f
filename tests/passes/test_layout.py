"""Permutations move down to the inputs, however long the way."""

from __future__ import annotations

import pytest

from batucada.ir.graph import Graph
from batucada.ir.text import parse_graph
from batucada.ir.verify import verify
from batucada.passes import layout
from batucada.passes.layout import store_weights_packed

STEPS = 40


def recurrence() -> Graph:
    """The gradient of a weight is the transposed sum of the products of many steps."""
    lines = [
        "def f(x: 'f32[4,8] input', w: 'f32[3,8] parameter'):",
        "    t = permute(w, dims=(1, 0))  # f32[8,3] FWD",
        "    y = matmul(x, t)  # f32[4,3] FWD",
        "    u = permute(y, dims=(1, 0))  # f32[3,4] BCKWD",
        "    s0 = matmul(u, x)  # f32[3,8] BCKWD",
    ]
    for n in range(STEPS):
        lines.append(f"    p{n} = tanh(s{n})  # f32[3,8] BCKWD")
        lines.append(f"    s{n + 1} = add(p{n}, p{n})  # f32[3,8] BCKWD")
    lines += [f"    g = add(s{STEPS}, w)  # f32[3,8] OPT", "    output('y', y)"]
    return verify(parse_graph("\n".join([*lines, "    update('w', g)", ""])))


def test_a_permutation_passes_a_chain_in_few_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[Graph] = []
    sink = layout._sink

    def counted(graph: Graph) -> Graph:
        sweeps.append(graph)
        return sink(graph)

    monkeypatch.setattr(layout, "_sink", counted)
    packed = verify(store_weights_packed(recurrence()))
    turned = [node for node in packed.nodes if node.op == "permute"]
    assert packed.input("w").type.shape == (8, 3)
    assert all(node.args[0].op == "input" for node in turned)
    assert len(sweeps) <= 4
