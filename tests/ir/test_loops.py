"""The loop language: printing and parsing, the rules of the verifier, and the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from batucada.ir.loops import Index, Kernel, Literal, Param, Register, Set, Store
from batucada.ir.loops_eval import run_kernel
from batucada.ir.loops_text import parse_kernel, print_kernel
from batucada.ir.loops_verify import VerifyError, verify_kernel
from tests.ir.kernels import kernels

DOT = """def dot(a: 'f32[16]', b: 'f32[16]', out: 'f32[1] inout'):
    total = splat(f32(0.0), 4)
    for k in range(0, 16, 4):
        total = fma(a[k, 4], b[k, 4], total)
    check(not_(isnan(reduce_add(total))), 3)
    out[0] = reduce_add(total)
"""


@given(kernels())
def test_a_print_parses_back(kernel: Kernel) -> None:
    verify_kernel(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel


def test_a_print_is_a_python_program() -> None:
    assert print_kernel(parse_kernel(DOT)) == DOT
    compile(DOT, "dot", "exec")


def test_literals_that_python_has_no_word_for() -> None:
    values = (Literal(float("inf"), "f32"), Literal(float("-inf"), "f64"), Literal(-0.0, "f16"))
    body = tuple(Set(Register(f"r{n}", v.dtype), v) for n, v in enumerate(values))
    kernel = Kernel("edges", (), body)
    assert parse_kernel(print_kernel(kernel)) == kernel
    nan = print_kernel(
        Kernel("nan", (), (Set(Register("r", "f32"), Literal(float("nan"), "f32")),))
    )
    assert print_kernel(parse_kernel(nan)) == nan


def test_the_interpreter_runs_a_kernel() -> None:
    a, b, out = np.arange(16, dtype=np.float32), np.full(16, 2, np.float32), np.zeros(1, np.float32)
    buffers = {"a": a, "b": b, "out": out}
    assert run_kernel(parse_kernel(DOT), buffers) == 0
    assert out[0] == 240
    a[3] = np.nan
    assert run_kernel(parse_kernel(DOT), buffers) == 3


TRIANGLE = """def triangle(x: 'f32[40] inout'):
    for row in range(0, 40, 8):
        for column in range(0, 40, 8, 37 + -1 * row):
            x[row + column, {lanes}] = f32(1.0)
"""


def test_the_bound_of_an_access_knows_the_limit_of_a_loop() -> None:
    """row + column is at most 36 and, with the step's multiples, at most 36 less 36 % 1."""
    verify_kernel(parse_kernel(TRIANGLE.format(lanes=4)))
    with pytest.raises(VerifyError, match="elements 0 to 43 of x, which has 40"):
        verify_kernel(parse_kernel(TRIANGLE.format(lanes=8)))
    verify_kernel(parse_kernel(TRIANGLE.format(lanes=8).replace("37", "40")))


def test_a_limit_ends_a_loop() -> None:
    kernel = parse_kernel(TRIANGLE.format(lanes=4))
    x = np.zeros(40, np.float32)
    assert run_kernel(kernel, {"x": x}) == 0
    np.testing.assert_array_equal(x.reshape(5, 8), [[1, 1, 1, 1, 0, 0, 0, 0]] * 5)


def test_the_interpreter_stops_at_the_end_of_a_buffer() -> None:
    kernel = parse_kernel(
        "def f(n: 'i64[1]', x: 'f32[4] inout'):\n    i = n[0]\n    x[2 * i] = f32(1)\n"
    )
    run_kernel(kernel, {"n": np.array([1]), "x": np.zeros(4, np.float32)})
    with pytest.raises(IndexError, match="elements 4 to 4 of x, which has 4"):
        run_kernel(kernel, {"n": np.array([2]), "x": np.zeros(4, np.float32)})


BROKEN = {
    "elements 3 to 18 of x, which has 16": "for i in range(0, 16, 1):\n  x[i + 3] = f32(0)",
    "elements -1 to": "for i in range(0, 4, 1):\n  x[i + -1] = f32(0)",
    "elements 12 to 19 of x": "x[12, 8] = f32(0)",
    "f64 stored in f32": "x[0] = f64(0)",
    "add of different dtypes": "x[0] = add(y[0], n[0])",
    "add of different lanes": "x[0, 8] = add(y[0, 8], y[0, 4])",
    "y may only be read": "y[0] = f32(0)",
    "r was": "r = f32(0)\nr = f64(0)",
    "exp of i64": "n0 = exp(n[0])",
    "parallel, but not": "for i in range(0, 2, 1):\n  for j in parallel(0, 2, 1):\n    pass",
    "in an index": "x[j] = f32(0)",
    "3 lanes": "x[0, 3] = f32(0)",
    "the condition is no bool": "check(f32(1), 2)",
    "code 0": "check(bool(True), 0)",
    "its variable is taken": "for i in range(0, 2, 1):\n  for i in range(0, 2, 1):\n    pass",
    "lane 9 of 8": "x[0] = lane_of(y[0, 8], 9)",
    "lane 8 of 8": "x[0, 4] = part(y[0, 8], 5, 4)",
}


@pytest.mark.parametrize("message", BROKEN)
def test_the_verifier_names_what_is_wrong(message: str) -> None:
    lines = "".join(f"    {line}\n" for line in BROKEN[message].splitlines())
    head = "def broken(x: 'f32[16] inout', y: 'f32[16]', n: 'i64[2]'):\n"
    with pytest.raises((VerifyError, ValueError), match=message):
        verify_kernel(parse_kernel(head + lines))


def test_a_register_is_set_before_it_is_used() -> None:
    early = Store("x", Index(), Register("r", "f32"))
    with pytest.raises(VerifyError, match="r is used before it is set"):
        verify_kernel(Kernel("early", (Param("x", "f32", 1, True),), (early,)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "def f(x: 'f32'):\n    pass",
        "def f():\n    while 1: pass",
        "def f(",
        "def f():\n    r = nonsense(f32(1))",
    ],
)
def test_what_is_no_kernel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="kernel"):
        parse_kernel(text)
