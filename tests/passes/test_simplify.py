"""Each rule of simplify.py as a small program before and after, and one that must stay as it is."""

from __future__ import annotations

import pytest

from batucada.ir.text import parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.simplify import RULES, simplify

HEAD = (
    "def f(x: 'f32[3,4] input', y: 'f32[1,4] input', n: 'i64[3,4] input',"
    " image: 'f32[2,5,6,3] input', half: 'bf16[3,4] input'):\n"
)


def program(body: str) -> str:
    lines = [line.strip() for line in body.strip().splitlines()]
    return print_graph(verify(parse_graph(HEAD + "".join(f"    {line}\n" for line in lines))))


def simplified(body: str) -> str:
    return print_graph(verify(simplify(parse_graph(program(body)))))


FIRES = {
    "widening_before_view": (
        """v0 = permute(half, dims=(1, 0))  # bf16[4,3] FWD
           v1 = cast(v0, dtype='f32')  # f32[4,3] FWD
           output('o', v1)""",
        """v0 = cast(half, dtype='f32')  # f32[3,4] FWD
           v1 = permute(v0, dims=(1, 0))  # f32[4,3] FWD
           output('o', v1)""",
    ),
    "narrow_what_was_widened": (
        """v0 = cast(half, dtype='f32')  # f32[3,4] FWD
           v1 = cast(v0, dtype='bf16')  # bf16[3,4] FWD
           v2 = neg(v1)  # bf16[3,4] FWD
           output('o', v2)""",
        """v0 = neg(half)  # bf16[3,4] FWD
           output('o', v0)""",
    ),
    "fold_constants": (
        """v0 = constant(value=2.0, dtype='f32')  # f32[] FWD
           v1 = constant(value=3.0, dtype='f32')  # f32[] FWD
           v2 = mul(v0, v1)  # f32[] FWD
           v3 = add(x, v2)  # f32[3,4] FWD
           output('o', v3)""",
        """v0 = constant(value=6.0, dtype='f32')  # f32[] FWD
           v1 = add(x, v0)  # f32[3,4] FWD
           output('o', v1)""",
    ),
    "permute_of_permute": (
        """v0 = permute(x, dims=(1, 0))  # f32[4,3] FWD
           v1 = permute(v0, dims=(1, 0))  # f32[3,4] FWD
           v2 = neg(v1)  # f32[3,4] FWD
           output('o', v2)""",
        """v0 = neg(x)  # f32[3,4] FWD
           output('o', v0)""",
    ),
    "reshape_of_reshape": (
        """v0 = reshape(x, shape=(12,))  # f32[12] FWD
           v1 = reshape(v0, shape=(2, 6))  # f32[2,6] FWD
           output('o', v1)""",
        """v0 = reshape(x, shape=(2, 6))  # f32[2,6] FWD
           output('o', v0)""",
    ),
    "view_without_effect": (
        """v0 = expand(x, shape=(3, 4))  # f32[3,4] FWD
           v1 = permute(v0, dims=(0, 1))  # f32[3,4] FWD
           v2 = reshape(v1, shape=(3, 4))  # f32[3,4] FWD
           output('o', v2)""",
        "output('o', x)",
    ),
    "expand_before_map": (
        """v0 = expand(y, shape=(3, 4))  # f32[3,4] FWD
           v1 = add(x, v0)  # f32[3,4] FWD
           output('o', v1)""",
        """v0 = add(x, y)  # f32[3,4] FWD
           output('o', v0)""",
    ),
    "slice_of_cat": (
        """v0 = cat(x, x, y, dim=0)  # f32[7,4] FWD
           v1 = slice(v0, dim=0, start=4, stop=6, step=1)  # f32[2,4] FWD
           v2 = slice(v0, dim=0, start=6, stop=7, step=1)  # f32[1,4] FWD
           output('o', v1)
           output('p', v2)""",
        """v0 = slice(x, dim=0, start=1, stop=3, step=1)  # f32[2,4] FWD
           output('o', v0)
           output('p', y)""",
    ),
    "multiply_by_one": (
        """v0 = constant(value=1.0, dtype='f32')  # f32[] FWD
           v1 = mul(x, v0)  # f32[3,4] FWD
           v2 = mul(v0, v1)  # f32[3,4] FWD
           v3 = div(v2, v0)  # f32[3,4] FWD
           output('o', v3)""",
        "output('o', x)",
    ),
    "reduce_of_one": (
        """v0 = sum(y, dims=(0,))  # f32[1,4] FWD
           v1 = amax(v0, dims=(0,))  # f32[1,4] FWD
           output('o', v1)""",
        "output('o', y)",
    ),
    "cast_to_same": (
        """v0 = cast(x, dtype='f32')  # f32[3,4] FWD
           output('o', v0)""",
        "output('o', x)",
    ),
    "share": (
        """v0 = exp(x)  # f32[3,4] FWD
           v1 = exp(x)  # f32[3,4] FWD
           v2 = add(v0, v1)  # f32[3,4] FWD
           output('o', v2)""",
        """v0 = exp(x)  # f32[3,4] FWD
           v1 = add(v0, v0)  # f32[3,4] FWD
           output('o', v1)""",
    ),
    "permute_after_map": (
        """v0 = permute(image, dims=(0, 3, 1, 2))  # f32[2,3,5,6] FWD
           v1 = exp(v0)  # f32[2,3,5,6] FWD
           output('o', v1)""",
        """v0 = exp(image)  # f32[2,5,6,3] FWD
           v1 = permute(v0, dims=(0, 3, 1, 2))  # f32[2,3,5,6] FWD
           output('o', v1)""",
    ),
    "permute_after_reduce": (
        """v0 = permute(image, dims=(0, 3, 1, 2))  # f32[2,3,5,6] FWD
           v1 = sum(v0, dims=(0, 2))  # f32[1,3,1,6] FWD
           output('o', v1)""",
        """v0 = sum(image, dims=(0, 1))  # f32[1,1,6,3] FWD
           v1 = permute(v0, dims=(0, 3, 1, 2))  # f32[1,3,1,6] FWD
           output('o', v1)""",
    ),
    "permute_after_slice": (
        """v0 = permute(image, dims=(0, 3, 1, 2))  # f32[2,3,5,6] FWD
           v1 = slice(v0, dim=2, start=1, stop=3, step=1)  # f32[2,3,2,6] FWD
           output('o', v1)""",
        """v0 = slice(image, dim=1, start=1, stop=3, step=1)  # f32[2,2,6,3] FWD
           v1 = permute(v0, dims=(0, 3, 1, 2))  # f32[2,3,2,6] FWD
           output('o', v1)""",
    ),
    "permute_of_ones": (
        """v0 = sum(image, dims=(1, 2))  # f32[2,1,1,3] FWD
           v1 = permute(v0, dims=(0, 3, 1, 2))  # f32[2,3,1,1] FWD
           output('o', v1)""",
        """v0 = sum(image, dims=(1, 2))  # f32[2,1,1,3] FWD
           v1 = reshape(v0, shape=(2, 3, 1, 1))  # f32[2,3,1,1] FWD
           output('o', v1)""",
    ),
}

STAYS = {
    "another half precision": """v0 = cast(half, dtype='f32')  # f32[3,4] FWD
           v1 = cast(v0, dtype='f16')  # f16[3,4] FWD
           output('o', v1)""",
    "a constant is added to a tensor": """
        v0 = constant(value=2.0, dtype='f32')  # f32[] FWD
        v1 = add(x, v0)  # f32[3,4] FWD
        output('o', v1)""",
    "a slice of two parts": """
        v0 = cat(x, x, dim=0)  # f32[6,4] FWD
        v1 = slice(v0, dim=0, start=2, stop=4, step=1)  # f32[2,4] FWD
        output('o', v1)""",
    "two permutations that do not cancel": """
        v0 = reshape(x, shape=(3, 2, 2))  # f32[3,2,2] FWD
        v1 = permute(v0, dims=(1, 2, 0))  # f32[2,2,3] FWD
        output('o', v1)""",
    "a reshape between permutations": """
        v0 = permute(x, dims=(1, 0))  # f32[4,3] FWD
        v1 = reshape(v0, shape=(3, 4))  # f32[3,4] FWD
        output('o', v1)""",
    "the expand gives the map its shape": """
        v0 = expand(y, shape=(3, 4))  # f32[3,4] FWD
        v1 = exp(v0)  # f32[3,4] FWD
        output('o', v1)""",
    "one divided by x": """
        v0 = constant(value=1.0, dtype='f32')  # f32[] FWD
        v1 = div(v0, x)  # f32[3,4] FWD
        output('o', v1)""",
    "a sum over more than one": """
        v0 = sum(x, dims=(0,))  # f32[1,4] FWD
        output('o', v0)""",
    "a cast to another dtype": """
        v0 = cast(x, dtype='i64')  # i64[3,4] FWD
        v1 = cast(v0, dtype='f32')  # f32[3,4] FWD
        output('o', v1)""",
    "minus zero": """
        v0 = constant(value=0.0, dtype='f32')  # f32[] FWD
        v1 = add(x, v0)  # f32[3,4] FWD
        output('o', v1)""",
    "an index check": """
        v0 = check_index(n, size=3, ignore=-1, low=0)  # i64[3,4] FWD
        output('o', v0)""",
    "constants of different sign": """
        v0 = constant(value=0.0, dtype='f32')  # f32[] FWD
        v1 = div(x, v0)  # f32[3,4] FWD
        v2 = constant(value=-0.0, dtype='f32')  # f32[] FWD
        v3 = div(x, v2)  # f32[3,4] FWD
        v4 = add(v1, v3)  # f32[3,4] FWD
        output('o', v4)""",
}


@pytest.mark.parametrize("rule", FIRES)
def test_fires(rule: str) -> None:
    before, after = FIRES[rule]
    assert program(before) != program(after)
    assert simplified(before) == program(after)


@pytest.mark.parametrize("case", STAYS)
def test_stays(case: str) -> None:
    assert simplified(STAYS[case]) == program(STAYS[case])


def test_every_rule_has_a_program() -> None:
    assert {rule.__name__ for rule in RULES} <= set(FIRES)


def test_broadcasting_one_keeps_the_shape() -> None:
    """y * ones(3, 4) is larger than y."""
    body = """
        v0 = constant(value=1.0, dtype='f32')  # f32[] FWD
        v1 = expand(v0, shape=(3, 4))  # f32[3,4] FWD
        v2 = mul(y, v1)  # f32[3,4] FWD
        output('o', v2)"""
    assert "f32[3,4] FWD" in simplified(body)
    assert "mul" in simplified(body)


def test_dead_code_goes() -> None:
    before = """
        v0 = exp(x)  # f32[3,4] FWD
        v1 = neg(x)  # f32[3,4] FWD
        output('o', v1)"""
    assert "exp" not in simplified(before)
