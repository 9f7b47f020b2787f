"""How products are blocked."""

from __future__ import annotations

import math

from batucada.ir.text import parse_graph
from batucada.mapping import map_graph
from batucada.mapping.program import Tile
from batucada.mapping.tiling import tile_of
from batucada.ops import OPS


def tile(a: str, b: str, result: str, product: str) -> Tile:
    text = f"""
def product(a: '{a} input', b: '{b} input'):
    v0 = {product}  # {result} FWD
    output('y', v0)
"""
    graph = parse_graph(text)
    return tile_of(next(n for n in graph.nodes if OPS[n.op].kind == "contract"))


def test_a_long_sum_is_cut_where_its_operands_fit_the_first_level_cache() -> None:
    """Both operands of a block of K, for all rows and columns, and halves for two threads."""
    found = tile(
        "f32[3,3,16,4,64,64]", "f32[4,64,64,16]", "f32[3,3,16,16]", "contract(a, b, batch=0, k=3)"
    )
    assert found.form == "outer"
    assert found.cut == 1
    assert found.m_block == 8
    assert found.k_block * 64 * (16 + 16) * 4 <= 32 * 1024


def test_a_deep_right_operand_is_copied_in_long_rows() -> None:
    found = tile(
        "f32[8,4,4,3,768]", "f32[3,768,256]", "f32[8,4,4,256]", "contract(a, b, batch=0, k=2)"
    )
    assert (found.form, found.cut) == ("packed", 1)
    assert found.n_block >= 64
    assert found.rows * found.outer * found.vectors == 12


def test_threads_share_the_columns_evenly() -> None:
    """Of a convolution over small images, whose panels are three vectors wide."""
    for n in (128, 256, 512):
        found = tile(
            f"f32[8,4,4,3,3,{n}]", f"f32[3,3,{n},{n}]", f"f32[8,4,4,{n}]",
            "contract(a, b, batch=0, k=3)",
        )  # fmt: skip
        assert (found.form, found.vectors) == ("packed", 3)
        assert n % (2 * found.n_block) == 0


def test_a_tile_leaves_registers_for_its_operands() -> None:
    for n in (1, 5, 8, 16, 24, 30, 40, 64, 130):
        for m in (1, 6, 7, 28, 300):
            found = tile(f"f32[{m},40]", f"f32[40,{n}]", f"f32[{m},{n}]", "matmul(a, b)")
            if found.form != "dot":
                assert found.rows * found.outer * found.vectors <= 12, (m, n, found)
                assert found.n_block % 8 == 0
                assert math.ceil(40 / found.k_block) == found.blocks


def test_a_turned_kernel_is_copied_by_panels_for_few_rows_too() -> None:
    """As a whole, a copy of it would lie in the arena."""
    text = """
def product(a: 'f32[16,512] input', w: 'f32[256,512] parameter'):
    v0 = permute(w, dims=(1, 0))  # f32[512,256] FWD
    v1 = contract(a, v0, batch=0, k=1)  # f32[16,256] FWD
    output('y', v1)
"""
    program = map_graph(parse_graph(text))
    assert [stage.pattern for stage in program.sections["FWD"]] == ["contract"]
    assert program.arena_bytes < 256 * 512 * 4
