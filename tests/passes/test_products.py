"""Which products become one."""

from __future__ import annotations

from collections.abc import Callable

from batucada.ir.graph import Graph
from batucada.ir.text import parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.products import join_products, join_steps
from batucada.runtime.oracle import check_step

HEAD = (
    "def f(a: 'f32[4,8] input', b: 'f32[4,6] input', c: 'f32[4,8] input', d: 'f32[4,6] input',"
    " x: 'f32[8,6] input', l: 'f32[8,99] input', r: 'f32[99,6] input',"
    " s: 'f32[2,1,8] input', t: 'f32[5,2,8] input'):\n"
)
PRODUCTS = """
    v0 = permute(a, dims=(1, 0))  # f32[8,4] FWD
    v1 = matmul(v0, b)  # f32[8,6] FWD
    v2 = permute(c, dims=(1, 0))  # f32[8,4] FWD
    v3 = matmul(v2, d)  # f32[8,6] FWD"""


def _program(body: str) -> str:
    lines = [line.strip() for line in body.strip().splitlines()]
    return print_graph(verify(parse_graph(HEAD + "".join(f"    {line}\n" for line in lines))))


def _joined(body: str, join: Callable[[Graph], Graph] = join_products) -> str:
    before = parse_graph(_program(body))
    after = verify(join(before))
    check_step("products", before, after)
    return print_graph(after)


def test_short_products_are_one() -> None:
    before = f"""{PRODUCTS}
        v4 = add(x, v1)  # f32[8,6] FWD
        v5 = add(v4, v3)  # f32[8,6] FWD
        output('o', v5)"""
    after = """
        v0 = cat(a, c, dim=0)  # f32[8,8] FWD
        v1 = permute(v0, dims=(1, 0))  # f32[8,8] FWD
        v2 = cat(b, d, dim=0)  # f32[8,6] FWD
        v3 = matmul(v1, v2)  # f32[8,6] FWD
        v4 = add(v3, x)  # f32[8,6] FWD
        output('o', v4)"""
    assert _joined(before) == _program(after)


def test_what_is_read_elsewhere_stays() -> None:
    before = f"""{PRODUCTS}
        v4 = add(v1, v3)  # f32[8,6] FWD
        output('o', v4)
        output('p', v3)"""
    assert _joined(before) == _program(before)


def test_long_products_and_a_single_one_stay() -> None:
    before = """
        v0 = matmul(l, r)  # f32[8,6] FWD
        v1 = permute(a, dims=(1, 0))  # f32[8,4] FWD
        v2 = matmul(v1, b)  # f32[8,6] FWD
        v3 = add(v0, v2)  # f32[8,6] FWD
        output('o', v3)"""
    assert _joined(before) == _program(before)


STEPS = """
    v0 = slice(s, dim=0, start=0, stop=1, step=1)  # f32[1,1,8] FWD
    v1 = reshape(v0, shape=(1, 8))  # f32[1,8] FWD
    v2 = matmul(v1, x)  # f32[1,6] FWD"""


def test_steps_of_one_row_are_one_product() -> None:
    before = f"""{STEPS}
        v3 = slice(s, dim=0, start=1, stop=2, step=1)  # f32[1,1,8] FWD
        v4 = reshape(v3, shape=(1, 8))  # f32[1,8] FWD
        v5 = matmul(v4, x)  # f32[1,6] FWD
        output('o', v2)
        output('p', v5)"""
    after = """
        v0 = reshape(s, shape=(2, 8))  # f32[2,8] FWD
        v1 = matmul(v0, x)  # f32[2,6] FWD
        v2 = reshape(v1, shape=(2, 1, 6))  # f32[2,1,6] FWD
        v3 = slice(v2, dim=0, start=0, stop=1, step=1)  # f32[1,1,6] FWD
        v4 = reshape(v3, shape=(1, 6))  # f32[1,6] FWD
        v5 = slice(v2, dim=0, start=1, stop=2, step=1)  # f32[1,1,6] FWD
        v6 = reshape(v5, shape=(1, 6))  # f32[1,6] FWD
        output('o', v4)
        output('p', v6)"""
    assert _joined(before, join_steps) == _program(after)


def test_one_step_of_several_stays() -> None:
    before = f"""{STEPS}
        output('o', v2)"""
    assert _joined(before, join_steps) == _program(before)


def test_steps_of_more_rows_stay() -> None:
    before = """
        v0 = slice(t, dim=1, start=0, stop=1, step=1)  # f32[5,1,8] FWD
        v1 = reshape(v0, shape=(5, 8))  # f32[5,8] FWD
        v2 = matmul(v1, x)  # f32[5,6] FWD
        v3 = slice(t, dim=1, start=1, stop=2, step=1)  # f32[5,1,8] FWD
        v4 = reshape(v3, shape=(5, 8))  # f32[5,8] FWD
        v5 = matmul(v4, x)  # f32[5,6] FWD
        output('o', v2)
        output('p', v5)"""
    assert _joined(before, join_steps) == _program(before)
