"""Stages that do the same share a kernel, wherever their operands lie; what differs does not."""

from __future__ import annotations

import numpy as np

from batucada.codegen.alike import likeness
from batucada.codegen.build import lower_program
from batucada.ir.text import parse_graph
from batucada.ir.verify import verify
from batucada.mapping import map_graph
from tests.runtime.native_graph import NativeGraph

RECURRENCE = """
def steps(x: 'f32[4,3,8] input', w: 'f32[8,8] parameter'):
    v0 = slice(x, dim=1, start=0, stop=1, step=1)  # f32[4,1,8] FWD
    v1 = reshape(v0, shape=(4, 8))  # f32[4,8] FWD
    v2 = slice(x, dim=1, start=1, stop=2, step=1)  # f32[4,1,8] FWD
    v3 = reshape(v2, shape=(4, 8))  # f32[4,8] FWD
    v4 = slice(x, dim=1, start=2, stop=3, step=1)  # f32[4,1,8] FWD
    v5 = reshape(v4, shape=(4, 8))  # f32[4,8] FWD
    v6 = matmul(v1, w)  # f32[4,8] FWD
    v7 = tanh(v6)  # f32[4,8] FWD
    v8 = matmul(v7, w)  # f32[4,8] FWD
    v9 = add(v8, v3)  # f32[4,8] FWD
    v10 = tanh(v9)  # f32[4,8] FWD
    v11 = matmul(v10, w)  # f32[4,8] FWD
    v12 = add(v11, v5)  # f32[4,8] FWD
    v13 = tanh(v12)  # f32[4,8] FWD
    output('y', v13)
"""


def test_steps_that_read_other_slices_share_a_kernel() -> None:
    program = map_graph(verify(parse_graph(RECURRENCE)))
    kernels = lower_program(program)
    first, second, third = (kernels.of_stage[s.name][0] for s in program.sections["FWD"])
    assert second.kernel is third.kernel
    assert first.kernel is not second.kernel
    starts = [dict(call.buffers)["x"] for call in (second, third)]
    assert starts[1] - starts[0] == 8 * 4  # one step of x, in bytes


def test_a_shared_kernel_reads_each_steps_own_slice() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 8), np.float32)
    w = rng.standard_normal((8, 8), np.float32)
    native = NativeGraph(verify(parse_graph(RECURRENCE)), {"x": x, "w": w})
    assert native.call("fwd") == 0
    state = np.tanh(x[:, 0] @ w)
    for t in (1, 2):
        state = np.tanh(state @ w + x[:, t])
    np.testing.assert_allclose(native.view("y"), state, rtol=1e-4, atol=1e-5)


def test_zeros_of_either_sign_are_different_work() -> None:
    keys = set[str]()
    for zero in ("0.0", "-0.0"):
        text = f"""
def quotient(x: 'f32[8] input'):
    v0 = constant(value={zero}, dtype='f32')  # f32[] FWD
    v1 = div(x, v0)  # f32[8] FWD
    output('y', v1)
"""
        program = map_graph(verify(parse_graph(text)))
        keys |= {likeness(program, stage, {}).key for stage in program.sections["FWD"]}
    assert len(keys) == 2


def test_memory_of_the_caller_is_not_like_our_own() -> None:
    """Behind ours there is room that a vector may read."""
    text = """
def two(x: 'f32[4,8] input', w: 'f32[4,8] parameter', u: 'f32[8,8] parameter'):
    v0 = matmul(x, u)  # f32[4,8] FWD
    v1 = matmul(w, u)  # f32[4,8] FWD
    output('a', v0)
    output('b', v1)
"""
    program = map_graph(verify(parse_graph(text)))
    spaces = {program.buffers["x"].has_slack, program.buffers["w"].has_slack}
    stages = program.sections["FWD"]
    assert spaces == {False, True}
    assert len({likeness(program, stage, {}).key for stage in stages}) == len(stages) == 2
