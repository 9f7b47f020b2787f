"""Updates lie where the old value lay: everybody who reads the old value has read it before."""

from __future__ import annotations

import numpy as np
import pytest

from batucada.ir.text import parse_graph
from batucada.ir.verify import verify
from batucada.runtime.oracle import evaluate
from tests.runtime.native_graph import NativeGraph

GRAPHS = {
    "other elements of itself": """
def f(a: 'f32[40] buffer'):
    v0 = flip(a, dims=(0,))  # f32[40] FWD
    v1 = exp(v0)  # f32[40] FWD
    update('a', v1)
""",
    "other elements of each other": """
def f(a: 'f32[40] buffer', b: 'f32[40] buffer'):
    v0 = flip(b, dims=(0,))  # f32[40] FWD
    v1 = exp(v0)  # f32[40] FWD
    v2 = flip(a, dims=(0,))  # f32[40] FWD
    v3 = sin(v2)  # f32[40] FWD
    update('a', v1)
    update('b', v3)
""",
    "a reader of old and new": """
def f(a: 'f32[40] buffer'):
    v0 = exp(a)  # f32[40] FWD
    v1 = sum(v0, dims=(0,))  # f32[1] FWD
    v2 = reshape(a, shape=(8, 5))  # f32[8,5] FWD
    v3 = sum(v2, dims=(1,))  # f32[8,1] FWD
    v4 = mul(v3, v1)  # f32[8,1] FWD
    update('a', v0)
    output('y', v4)
""",
    "two passes over what is updated": """
def f(a: 'f32[3,40] buffer'):
    v0 = exp(a)  # f32[3,40] FWD
    v1 = sum(a, dims=(1,))  # f32[3,1] FWD
    v2 = sub(a, v1)  # f32[3,40] FWD
    v3 = sum(v2, dims=(1,))  # f32[3,1] FWD
    update('a', v0)
    output('y', v3)
""",
    "a product of itself": """
def f(a: 'f32[16,16] buffer'):
    v0 = matmul(a, a)  # f32[16,16] FWD
    v1 = sub(a, v0)  # f32[16,16] FWD
    update('a', v1)
""",
    "two groups of one state": """
def f(x: 'f32[8,40] input', p: 'f32[40] parameter', s: 'f32[40] state', t: 'f32[40] state'):
    v0 = sum(x, dims=(0,))  # f32[1,40] BCKWD
    v1 = reshape(v0, shape=(40,))  # f32[40] BCKWD
    v2 = mul(s, v1)  # f32[40] OPT
    v3 = flip(s, dims=(0,))  # f32[40] OPT
    v4 = exp(v2)  # f32[40] OPT
    v5 = mul(v3, v4)  # f32[40] OPT
    v6 = sub(p, v5)  # f32[40] OPT
    v7 = flip(v4, dims=(0,))  # f32[40] OPT
    v8 = sub(t, v7)  # f32[40] OPT
    gradient('p', v1)
    update('p', v6)
    update('s', v2)
    update('t', v8)
""",
    "an update that another gradient's update reads": """
def f(x: 'f32[8,40] input', p: 'f32[40] parameter', q: 'f32[40] parameter'):
    v0 = sum(x, dims=(0,))  # f32[1,40] BCKWD
    v1 = reshape(v0, shape=(40,))  # f32[40] BCKWD
    v2 = mul(x, x)  # f32[8,40] BCKWD
    v3 = sum(v2, dims=(0,))  # f32[1,40] BCKWD
    v4 = reshape(v3, shape=(40,))  # f32[40] BCKWD
    v5 = sub(p, v1)  # f32[40] OPT
    v6 = mul(p, v4)  # f32[40] OPT
    v7 = sub(q, v6)  # f32[40] OPT
    gradient('p', v1)
    gradient('q', v4)
    update('p', v5)
    update('q', v7)
""",
}


@pytest.mark.parametrize("entries", [("step",), ("fwd", "bckwd", "opt")], ids="-".join)
@pytest.mark.parametrize("case", GRAPHS)
def test_updates(case: str, entries: tuple[str, ...]) -> None:
    graph = verify(parse_graph(GRAPHS[case]))
    random = np.random.default_rng(1)
    values = {i.name: random.random(i.type.shape).astype(np.float32) for i in graph.inputs}
    expected = evaluate(graph, values)
    native = NativeGraph(graph, values)
    assert native.call(*entries) == 0
    for key, found in native.results().items():
        if key[0] != "gradient":  # a whole step need not store it
            np.testing.assert_allclose(found, expected[key], 2e-6, err_msg=str(key))
