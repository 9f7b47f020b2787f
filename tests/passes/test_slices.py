"""Slices are taken early where nothing else is read; each program before and after."""

from __future__ import annotations

import pytest

from batucada.ir.text import parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.slices import slice_early
from batucada.runtime.oracle import check_step

HEAD = (
    "def f(x: 'f32[2,8,4] input', y: 'f32[2,8,4] input', w: 'f32[4,5] parameter',"
    " column: 'f32[8,1] input', n: 'i64[8,4] input', none: 'f32[0,8,4] input'):\n"
)

FIRES = {
    "maps, with what is broadcast whole or sliced": (
        """v0 = constant(value=2.0, dtype='f32')  # f32[] FWD
           v1 = mul(x, v0)  # f32[2,8,4] FWD
           v2 = add(v1, column)  # f32[2,8,4] FWD
           v3 = slice(v2, dim=1, start=7, stop=8, step=1)  # f32[2,1,4] FWD
           output('o', v3)""",
        """v0 = slice(x, dim=1, start=7, stop=8, step=1)  # f32[2,1,4] FWD
           v1 = constant(value=2.0, dtype='f32')  # f32[] FWD
           v2 = mul(v0, v1)  # f32[2,1,4] FWD
           v3 = slice(column, dim=0, start=7, stop=8, step=1)  # f32[1,1] FWD
           v4 = add(v2, v3)  # f32[2,1,4] FWD
           output('o', v4)""",
    ),
    "two readers of the same slice, and a sum along another dimension": (
        """v0 = neg(x)  # f32[2,8,4] FWD
           v1 = sum(v0, dims=(2,))  # f32[2,8,1] FWD
           v2 = div(v0, v1)  # f32[2,8,4] FWD
           v3 = slice(v2, dim=1, start=0, stop=2, step=1)  # f32[2,2,4] FWD
           output('o', v3)""",
        """v0 = slice(x, dim=1, start=0, stop=2, step=1)  # f32[2,2,4] FWD
           v1 = neg(v0)  # f32[2,2,4] FWD
           v2 = sum(v1, dims=(2,))  # f32[2,2,1] FWD
           v3 = div(v1, v2)  # f32[2,2,4] FWD
           output('o', v3)""",
    ),
    "parts beside each other, turned": (
        """v0 = cat(x, y, dim=2)  # f32[2,8,8] FWD
           v1 = permute(v0, dims=(1, 2, 0))  # f32[8,8,2] FWD
           v2 = slice(v1, dim=0, start=7, stop=8, step=1)  # f32[1,8,2] FWD
           output('o', v2)""",
        """v0 = slice(x, dim=1, start=7, stop=8, step=1)  # f32[2,1,4] FWD
           v1 = slice(y, dim=1, start=7, stop=8, step=1)  # f32[2,1,4] FWD
           v2 = cat(v0, v1, dim=2)  # f32[2,1,8] FWD
           v3 = permute(v2, dims=(1, 2, 0))  # f32[1,8,2] FWD
           output('o', v3)""",
    ),
    "one row of every sample": (
        """v0 = reshape(x, shape=(16, 4))  # f32[16,4] FWD
           v1 = matmul(v0, w)  # f32[16,5] FWD
           v2 = reshape(v1, shape=(2, 8, 5))  # f32[2,8,5] FWD
           v3 = slice(v2, dim=1, start=3, stop=4, step=1)  # f32[2,1,5] FWD
           output('o', v3)""",
        """v0 = reshape(x, shape=(16, 4))  # f32[16,4] FWD
           v1 = slice(v0, dim=0, start=3, stop=16, step=8)  # f32[2,4] FWD
           v2 = matmul(v1, w)  # f32[2,5] FWD
           v3 = reshape(v2, shape=(2, 1, 5))  # f32[2,1,5] FWD
           output('o', v3)""",
    ),
    "a matrix of each batch": (
        """v0 = permute(y, dims=(0, 2, 1))  # f32[2,4,8] FWD
           v1 = matmul(x, v0)  # f32[2,8,8] FWD
           v2 = neg(v1)  # f32[2,8,8] FWD
           v3 = slice(v2, dim=1, start=0, stop=8, step=4)  # f32[2,2,8] FWD
           output('o', v3)""",
        """v0 = slice(x, dim=1, start=0, stop=8, step=4)  # f32[2,2,4] FWD
           v1 = permute(y, dims=(0, 2, 1))  # f32[2,4,8] FWD
           v2 = matmul(v0, v1)  # f32[2,2,8] FWD
           v3 = neg(v2)  # f32[2,2,8] FWD
           output('o', v3)""",
    ),
}  # fmt: skip

STAYS = {
    "a large slice": """
        v0 = neg(x)  # f32[2,8,4] FWD
        v1 = slice(v0, dim=1, start=0, stop=4, step=1)  # f32[2,4,4] FWD
        output('o', v1)""",
    "what else is read": """
        v0 = neg(x)  # f32[2,8,4] FWD
        v1 = slice(v0, dim=1, start=0, stop=1, step=1)  # f32[2,1,4] FWD
        v2 = slice(v0, dim=1, start=1, stop=2, step=1)  # f32[2,1,4] FWD
        output('o', v1)
        output('p', v2)""",
    "an output": """
        v0 = neg(x)  # f32[2,8,4] FWD
        v1 = slice(v0, dim=1, start=0, stop=1, step=1)  # f32[2,1,4] FWD
        output('o', v0)
        output('p', v1)""",
    "a view of an input": """
        v0 = permute(x, dims=(2, 1, 0))  # f32[4,8,2] FWD
        v1 = slice(v0, dim=1, start=0, stop=1, step=1)  # f32[4,1,2] FWD
        output('o', v1)""",
    "columns of a product": """
        v0 = permute(y, dims=(0, 2, 1))  # f32[2,4,8] FWD
        v1 = matmul(x, v0)  # f32[2,8,8] FWD
        v2 = slice(v1, dim=2, start=0, stop=1, step=1)  # f32[2,8,1] FWD
        output('o', v2)""",
    "the test of indices": """
        v0 = check_index(n, size=9, ignore=-100, low=0)  # i64[8,4] FWD
        v1 = slice(v0, dim=0, start=0, stop=1, step=1)  # i64[1,4] FWD
        output('o', v1)""",
    "nothing": """
        v0 = neg(none)  # f32[0,8,4] FWD
        v1 = reshape(v0, shape=(8, 0, 4))  # f32[8,0,4] FWD
        v2 = slice(v1, dim=0, start=0, stop=1, step=1)  # f32[1,0,4] FWD
        output('o', v2)""",
}  # fmt: skip


def _program(body: str) -> str:
    lines = [line.strip() for line in body.strip().splitlines()]
    return print_graph(verify(parse_graph(HEAD + "".join(f"    {line}\n" for line in lines))))


@pytest.mark.parametrize("name", FIRES)
def test_slices_are_taken_early(name: str) -> None:
    before, after = FIRES[name]
    graph = parse_graph(_program(before))
    found = verify(slice_early(graph))
    assert print_graph(found) == _program(after)
    check_step("slices", graph, found)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_read_whole_stays(name: str) -> None:
    graph = parse_graph(_program(STAYS[name]))
    assert slice_early(graph) is graph
