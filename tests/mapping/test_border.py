"""Products that leave out padding: which taps meet which places, and how they are blocked."""

from __future__ import annotations

import numpy as np
import pytest

from batucada.ir.graph import Graph, Node
from batucada.ir.text import parse_graph
from batucada.ir.verify import verify
from batucada.mapping import map_graph
from batucada.mapping.tiling import tile_of
from batucada.ops.border import Run, runs_of
from batucada.runtime.oracle import evaluate
from tests.runtime.native_graph import NativeGraph


def _graph(images: int, extent: int, channels: int, step: int = 1) -> Graph:
    c, n, p = channels, extent + 2, (extent - 1) // step + 1
    shape = f"{images},{p},{p}"
    return parse_graph(f"""
def product(x: 'f32[{images},{extent},{extent},{c}] input', w: 'f32[3,3,{c},{c}] parameter'):
    v0 = border(x, low=(0, 1, 1, 0), high=(0, 1, 1, 0))  # f32[{images},{n},{n},{c}] FWD
    v1 = window(v0, dims=(1, 2), sizes=(3, 3), steps=({step}, {step}), dilations=(1, 1))  \
# f32[{shape},{c},3,3] FWD
    v2 = permute(v1, dims=(0, 1, 2, 4, 5, 3))  # f32[{shape},3,3,{c}] FWD
    v3 = contract(v2, w, batch=0, k=3)  # f32[{shape},{c}] FWD
    output('y', v3)
""")


def _product(graph: Graph) -> Node:
    return next(node for node in graph.nodes if node.op == "contract")


def test_taps_that_meet_equally_many_places_are_one_loop() -> None:
    """Of three, the outer ones, which see one end each; with a step of 2, the last two."""
    ends, middle = Run(2, 0, 2, 3, 1, -1), Run(1, 1, 0, 4, 0, 0)
    assert runs_of(_product(_graph(8, 4, 32))) == [[ends, middle]] * 2
    first, others = Run(1, 0, 0, 1, 1, 0), Run(2, 1, 1, 2, 0, 0)
    assert runs_of(_product(_graph(8, 4, 32, step=2))) == [[first, others]] * 2


def test_no_padded_copy_is_made() -> None:
    program = map_graph(_graph(8, 4, 64))
    assert [stage.pattern for stage in program.sections["FWD"]] == ["contract"]


@pytest.mark.parametrize("sizes", [(8, 2, 512), (32, 4, 256), (128, 8, 64)])
def test_what_a_block_of_columns_needs_stays_near(sizes: tuple[int, int, int]) -> None:
    """In the second-level cache."""
    images, extent, _ = sizes
    found = tile_of(_product(_graph(*sizes)))
    sums = found.m_block * extent**2 * found.n_block
    assert 4 * max(sums, found.k_block * found.n_copied) <= 512 * 1024
    assert images % found.m_block == 0
    assert found.rows * found.vectors == 12


def test_native_code_gives_what_the_oracle_gives() -> None:
    graph = verify(_graph(5, 3, 34, step=2))
    random = np.random.default_rng(0)
    values = {node.name: random.normal(size=node.type.shape) for node in graph.inputs}
    native = NativeGraph(graph, values)
    assert native.call("step") == 0
    (expected,), (found,) = evaluate(graph, values).values(), native.results().values()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
