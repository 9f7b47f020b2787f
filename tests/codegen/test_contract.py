"""The loops around a product's tiles."""

from __future__ import annotations

import pytest

from batucada.codegen.lower import check_codes, lower_stage
from batucada.ir.text import parse_graph
from batucada.mapping import map_graph


@pytest.mark.parametrize(("images", "turns"), [(1, 32), (2, 2), (6, 6)])
def test_threads_share_the_first_loop_of_several_turns(images: int, turns: int) -> None:
    """Of one image its rows."""
    program = map_graph(
        parse_graph(f"""
def image(x: 'f32[{images},34,34,16] input', w: 'f32[3,3,16,16] parameter'):
    v0 = window(x, dims=(1, 2), sizes=(3, 3), steps=(1, 1), dilations=(1, 1))  \
# f32[{images},32,32,16,3,3] FWD
    v1 = permute(v0, dims=(0, 1, 2, 4, 5, 3))  # f32[{images},32,32,3,3,16] FWD
    v2 = contract(v1, w, batch=0, k=3)  # f32[{images},32,32,16] FWD
    output('y', v2)
""")
    )
    (stage,) = (s for s in program.sections["FWD"] if s.contract is not None)
    for kernel in lower_stage(program, stage, check_codes(program)):
        start, stop, step = kernel.trip
        assert (stop - start) // step == turns
