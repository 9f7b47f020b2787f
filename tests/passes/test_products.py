"""Which sums of products become one product."""

from __future__ import annotations

from batucada.ir.text import parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.products import join_products
from batucada.runtime.oracle import check_step

HEAD = (
    "def f(a: 'f32[4,8] input', b: 'f32[4,6] input', c: 'f32[4,8] input', d: 'f32[4,6] input',"
    " x: 'f32[8,6] input', l: 'f32[8,99] input', r: 'f32[99,6] input'):\n"
)
PRODUCTS = """
    v0 = permute(a, dims=(1, 0))  # f32[8,4] FWD
    v1 = matmul(v0, b)  # f32[8,6] FWD
    v2 = permute(c, dims=(1, 0))  # f32[8,4] FWD
    v3 = matmul(v2, d)  # f32[8,6] FWD"""


def _program(body: str) -> str:
    lines = [line.strip() for line in body.strip().splitlines()]
    return print_graph(verify(parse_graph(HEAD + "".join(f"    {line}\n" for line in lines))))


def _joined(body: str) -> str:
    before = parse_graph(_program(body))
    after = verify(join_products(before))
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
