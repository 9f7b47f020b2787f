"""Which operations become one stage, and which must not."""

from __future__ import annotations

from batucada.codegen.build import lower_program
from batucada.ir.text import parse_graph
from batucada.ir.verify import verify
from batucada.mapping import Program, map_graph


def mapped(text: str) -> Program:
    return map_graph(verify(parse_graph(text)))


def shape_of(program: Program, section: str) -> list[tuple[str, list[str]]]:
    """(pattern, operations) of each stage of a section."""
    stages = program.sections[section]  # type: ignore[index]
    return [(stage.pattern, [node.op for node in stage.nodes]) for stage in stages]


def test_bias_and_activation_are_the_epilogue_of_a_product() -> None:
    program = mapped("""
def layer(x: 'f32[4,8] input', w: 'f32[8,3] parameter', b: 'f32[3] parameter'):
    v0 = matmul(x, w)  # f32[4,3] FWD
    v1 = add(v0, b)  # f32[4,3] FWD
    v2 = constant(value=0.0, dtype='f32')  # f32[] FWD
    v3 = maximum(v1, v2)  # f32[4,3] FWD
    output('y', v3)
""")
    ((pattern, ops),) = shape_of(program, "FWD")
    assert pattern == "contract"
    assert {"matmul", "maximum"} <= set(ops)


def test_a_reduction_of_a_product_is_a_stage_of_its_own() -> None:
    program = mapped("""
def rows(x: 'f32[4,8] input', w: 'f32[8,3] parameter'):
    v0 = matmul(x, w)  # f32[4,3] FWD
    v1 = sum(v0, dims=(1,))  # f32[4,1] FWD
    output('y', v1)
""")
    assert [pattern for pattern, _ in shape_of(program, "FWD")] == ["contract", "reduce"]


def test_a_product_is_not_the_epilogue_of_another() -> None:
    program = mapped("""
def two(x: 'f32[4,8] input', w: 'f32[8,3] parameter', u: 'f32[3,5] parameter'):
    v0 = matmul(x, w)  # f32[4,3] FWD
    v1 = matmul(v0, u)  # f32[4,5] FWD
    output('y', v1)
""")
    assert shape_of(program, "FWD") == [("contract", ["matmul"]), ("contract", ["matmul"])]


def test_softmax_is_one_stage() -> None:
    program = mapped("""
def softmax(x: 'f32[4,8] input'):
    v0 = amax(x, dims=(1,))  # f32[4,1] FWD
    v1 = sub(x, v0)  # f32[4,8] FWD
    v2 = exp(v1)  # f32[4,8] FWD
    v3 = sum(v2, dims=(1,))  # f32[4,1] FWD
    v4 = div(v2, v3)  # f32[4,8] FWD
    output('y', v4)
""")
    assert [pattern for pattern, _ in shape_of(program, "FWD")] == ["reduce"]


def test_sums_over_different_dimensions_do_not_fuse() -> None:
    program = mapped("""
def sums(x: 'f32[4,8] input'):
    v0 = sum(x, dims=(0,))  # f32[1,8] FWD
    v1 = sum(x, dims=(1,))  # f32[4,1] FWD
    output('a', v0)
    output('b', v1)
""")
    assert len(program.sections["FWD"]) == 2


def test_a_value_read_at_another_point_does_not_fuse() -> None:
    """exp(x) is read turned: the stage that makes it has it only at its own point."""
    program = mapped("""
def turned(x: 'f32[4,4] input'):
    v0 = exp(x)  # f32[4,4] FWD
    v1 = permute(v0, dims=(1, 0))  # f32[4,4] FWD
    v2 = add(v0, v1)  # f32[4,4] FWD
    output('y', v2)
""")
    assert len(program.sections["FWD"]) == 2


def test_a_cheap_map_of_an_input_is_computed_by_each_reader() -> None:
    program = mapped("""
def cheap(x: 'f32[4,8] input', w: 'f32[8,3] parameter'):
    v0 = neg(x)  # f32[4,8] FWD
    v1 = sum(v0, dims=(1,))  # f32[4,1] FWD
    v2 = sum(v0, dims=(0,))  # f32[1,8] FWD
    output('a', v1)
    output('b', v2)
""")
    assert not any(b.space == "arena" for b in program.buffers.values())


TRAINING = """
def step(x: 'f32[4,8] input', w: 'f32[8,3] parameter', g: 'f32[4,3] tangent', lr: 'f32[] hyper'):
    v0 = matmul(x, w)  # f32[4,3] FWD
    v1 = permute(x, dims=(1, 0))  # f32[8,4] BCKWD
    v2 = matmul(v1, g)  # f32[8,3] BCKWD
    v3 = mul(lr, v2)  # f32[8,3] OPT
    v4 = sub(w, v3)  # f32[8,3] OPT
    output('y', v0)
    gradient('w', v2)
    update('w', v4)
"""


def test_the_update_is_fused_into_the_product_of_its_gradient() -> None:
    program = mapped(TRAINING)
    (fused,) = program.fused
    assert fused.contract is not None
    assert [root.buffer for root in fused.roots] == ["w"], "the gradient itself is not written"
    assert [root.buffer for stage in program.regrad for root in stage.roots] == ["w__grad"]


def test_gradients_that_a_whole_step_does_not_write_lie_behind_all_others() -> None:
    """Between them they would be in memory with the pages of those."""
    program = mapped(
        TRAINING.replace(", lr:", ", b: 'f32[4,4] parameter', lr:")
        .replace("    v3 =", "    v5 = matmul(x, v1)  # f32[4,4] BCKWD\n    v3 =")
        .replace("    output(", "    v6 = permute(v5, dims=(1, 0))  # f32[4,4] OPT\n    output(")
        .replace("    output(", "    v7 = mul(lr, v6)  # f32[4,4] OPT\n    output(")
        .replace("    output(", "    v8 = sub(b, v7)  # f32[4,4] OPT\n    output(")
        + "    gradient('b', v5)\n    update('b', v8)\n"
    )
    assert [root.buffer for stage in program.regrad for root in stage.roots] == ["w__grad"]
    assert program.buffers["b__grad"].offset < program.buffers["w__grad"].offset


def test_a_gradient_that_needs_the_old_weight_is_not_fused_with_its_update() -> None:
    """It could not be computed again afterwards."""
    program = mapped(
        TRAINING.replace("matmul(v1, g)", "matmul(v1, v9)")
        .replace("    v1 = permute", "    v9 = matmul(x, w)  # f32[4,3] BCKWD\n    v1 = permute")
        .replace("    v2 =", "    v10 = add(w, w)  # f32[8,3] BCKWD\n    v7 =")
        .replace("    v3 =", "    v2 = add(v7, v10)  # f32[8,3] BCKWD\n    v3 =")
    )
    assert not any(
        stage.contract is not None and stage.name.endswith("_update") for stage in program.fused
    )


def test_with_a_gradient_norm_nothing_is_fused() -> None:
    program = mapped(
        TRAINING.replace(
            "    v3 = mul(lr, v2)  # f32[8,3] OPT",
            "    v6 = mul(v2, v2)  # f32[8,3] GRADNORM\n"
            "    v7 = sum(v6, dims=(0, 1))  # f32[1,1] GRADNORM\n"
            "    v8 = div(v2, v7)  # f32[8,3] OPT\n"
            "    v3 = mul(lr, v8)  # f32[8,3] OPT",
        )
    )
    assert program.fused == ()
    assert program.sections["GRADNORM"]


def test_sections_are_kept_apart() -> None:
    program = mapped(TRAINING)
    for section, stages in program.sections.items():
        assert all(stage.section == section for stage in stages)
    assert [len(program.sections[s]) for s in ("FWD", "BCKWD", "OPT")] == [1, 1, 1]


def test_an_update_that_reads_other_elements_of_its_gradient_is_not_fused() -> None:
    program = mapped("""
def turned(x: 'f32[4,4] input', w: 'f32[4,4] parameter', lr: 'f32[] hyper'):
    v0 = matmul(x, w)  # f32[4,4] FWD
    v1 = matmul(x, v0)  # f32[4,4] BCKWD
    v2 = permute(v1, dims=(1, 0))  # f32[4,4] OPT
    v3 = mul(lr, v2)  # f32[4,4] OPT
    v4 = sub(w, v3)  # f32[4,4] OPT
    output('y', v0)
    gradient('w', v1)
    update('w', v4)
""")
    assert [stage.name.endswith("_update") for stage in program.fused] == [False, False]


def test_a_chain_without_end_is_cut_into_stages() -> None:
    lines = ["def chain(x: 'f32[8] input'):", "    v0 = sin(x)  # f32[8] FWD"]
    lines += [f"    v{n + 1} = sin(v{n})  # f32[8] FWD" for n in range(999)]
    program = mapped("\n".join([*lines, "    output('y', v999)", ""]))
    sizes = [len(ops) for _, ops in shape_of(program, "FWD")]
    assert sum(sizes) == 1000
    assert len(lower_program(program).all) < len(sizes)  # lowered without recursion errors, shared
