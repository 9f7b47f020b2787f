"""What is made again in the backward pass, and what is kept."""

from __future__ import annotations

from batucada.ir.text import parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.recompute import recompute
from batucada.runtime.oracle import check_step

HEAD = (
    "def f(a: 'f32[64,8] input', w: 'f32[8,128] parameter', label: 'i64[64,1] input',"
    " seen: 'f32[64,128] buffer'):\n"
)


def _program(body: str) -> str:
    lines = [line.strip() for line in body.strip().splitlines()]
    return print_graph(verify(parse_graph(HEAD + "".join(f"    {line}\n" for line in lines))))


def _recomputed(body: str) -> str:
    before = parse_graph(_program(body))
    after = verify(recompute(before))
    check_step("recompute", before, after)
    return print_graph(after)


def test_of_log_softmax_only_the_logits_are_kept() -> None:
    """Its forward value is one look-up, its backward value comes from what is kept anyway."""
    before = """
        v0 = matmul(a, w)  # f32[64,128] FWD
        v1 = amax(v0, dims=(1,))  # f32[64,1] FWD
        v2 = sub(v0, v1)  # f32[64,128] FWD
        v3 = exp(v2)  # f32[64,128] FWD
        v4 = sum(v3, dims=(1,))  # f32[64,1] FWD
        v5 = log(v4)  # f32[64,1] FWD
        v6 = sub(v2, v5)  # f32[64,128] FWD
        v7 = check_index(label, size=128, ignore=0, low=0)  # i64[64,1] FWD
        v8 = take(v6, v7, dims=(1,))  # f32[64,1] FWD
        v9 = exp(v6)  # f32[64,128] BCKWD
        output('o', v8)
        gradient('a', v9)"""
    after = """
        v0 = matmul(a, w)  # f32[64,128] FWD
        v1 = check_index(label, size=128, ignore=0, low=0)  # i64[64,1] FWD
        v2 = take(v0, v1, dims=(1,))  # f32[64,1] FWD
        v3 = amax(v0, dims=(1,))  # f32[64,1] FWD
        v4 = sub(v2, v3)  # f32[64,1] FWD
        v5 = sub(v0, v3)  # f32[64,128] FWD
        v6 = exp(v5)  # f32[64,128] FWD
        v7 = sum(v6, dims=(1,))  # f32[64,1] FWD
        v8 = log(v7)  # f32[64,1] FWD
        v9 = sub(v4, v8)  # f32[64,1] FWD
        v10 = sub(v0, v3)  # f32[64,128] BCKWD
        v11 = sub(v10, v8)  # f32[64,128] BCKWD
        v12 = exp(v11)  # f32[64,128] BCKWD
        output('o', v9)
        gradient('a', v12)"""
    assert _recomputed(before) == _program(after)


def test_what_would_need_another_value_stored_is_kept() -> None:
    """The product ends in the activation: to make the sign again it would have to be stored."""
    body = """
        v0 = matmul(a, w)  # f32[64,128] FWD
        v1 = constant(value=0.0, dtype='f32')  # f32[] FWD
        v2 = maximum(v0, v1)  # f32[64,128] FWD
        v3 = gt(v0, v1)  # bool[64,128] FWD
        v4 = where(v3, v2, v1)  # f32[64,128] BCKWD
        output('o', v2)
        gradient('a', v4)"""
    assert _recomputed(body) == _program(body)


def test_what_is_made_of_a_buffer_that_the_forward_pass_changes_is_kept() -> None:
    body = """
        v0 = constant(value=2.0, dtype='f32')  # f32[] FWD
        v1 = mul(seen, v0)  # f32[64,128] FWD
        v2 = sum(v1, dims=(1,))  # f32[64,1] FWD
        v3 = add(seen, v0)  # f32[64,128] FWD
        v4 = exp(v1)  # f32[64,128] BCKWD
        output('o', v2)
        gradient('a', v4)
        update('seen', v3)"""
    assert _recomputed(body) == _program(body)


PADDED = """
        v0 = matmul(a, w)  # f32[64,128] FWD
        v1 = exp(v0)  # f32[64,128] FWD
        v2 = pad(v1, low=(1, 0), high=(1, 0), value=0.0)  # f32[66,128] FWD
        v3 = sum(v2, dims=(1,))  # f32[66,1] FWD"""


def test_a_padded_copy_of_what_is_kept_is_made_again() -> None:
    before = f"""{PADDED}
        v4 = mul(v1, v1)  # f32[64,128] BCKWD
        v5 = exp(v2)  # f32[66,128] BCKWD
        output('o', v3)
        gradient('a', v4)
        gradient('w', v5)"""
    after = f"""{PADDED}
        v4 = mul(v1, v1)  # f32[64,128] BCKWD
        v5 = pad(v1, low=(1, 0), high=(1, 0), value=0.0)  # f32[66,128] BCKWD
        v6 = exp(v5)  # f32[66,128] BCKWD
        output('o', v3)
        gradient('a', v4)
        gradient('w', v6)"""
    assert _recomputed(before) == _program(after)


def test_a_padded_copy_is_kept_where_nothing_else_is() -> None:
    body = f"""{PADDED}
        v4 = exp(v2)  # f32[66,128] BCKWD
        output('o', v3)
        gradient('a', v4)"""
    assert _recomputed(body) == _program(body)


def test_a_padded_copy_much_larger_than_its_source_is_made_again_below_views() -> None:
    forward = """
        v0 = matmul(a, w)  # f32[64,128] FWD
        v1 = exp(v0)  # f32[64,128] FWD
        v2 = pad(v1, low=(64, 0), high=(0, 0), value=0.0)  # f32[128,128] FWD
        v3 = slice(v2, dim=0, start=1, stop=128, step=1)  # f32[127,128] FWD
        v4 = sum(v3, dims=(1,))  # f32[127,1] FWD"""
    before = f"""{forward}
        v5 = exp(v3)  # f32[127,128] BCKWD
        output('o', v4)
        gradient('a', v5)"""
    after = f"""{forward}
        v5 = pad(v1, low=(64, 0), high=(0, 0), value=0.0)  # f32[128,128] BCKWD
        v6 = slice(v5, dim=0, start=1, stop=128, step=1)  # f32[127,128] BCKWD
        v7 = exp(v6)  # f32[127,128] BCKWD
        output('o', v4)
        gradient('a', v7)"""
    assert _recomputed(before) == _program(after)
