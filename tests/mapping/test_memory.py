"""The arena plan: what lives at once never shares an address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.ir.types import ITEM_BYTES
from batucada.mapping import Program, Stage, map_graph
from batucada.mapping.memory import ALIGNMENT, Life, plan
from batucada.passes.simplify import simplify
from tests.runtime.random_graphs import training_steps


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    found = []
    for number in range(draw(st.integers(0, 20))):
        steps = sorted(draw(st.sets(st.integers(0, 12), min_size=2, max_size=6)))
        spans = tuple(zip(steps[::2], steps[1::2], strict=False))
        found.append(Life(f"b{number}", draw(st.integers(0, 1000)), spans))
    return found


@given(lives())
def test_buffers_that_live_at_once_lie_apart(buffers: list[Life]) -> None:
    made = plan(buffers)
    for i, a in enumerate(buffers):
        start = made.offsets[a.name]
        assert start % ALIGNMENT == 0
        assert start + a.size <= made.bytes
        for b in buffers[:i]:
            other = made.offsets[b.name]
            apart_in_time = not _steps(a) & _steps(b)
            apart_in_space = start + a.size <= other or other + b.size <= start
            assert apart_in_time or apart_in_space or 0 in (a.size, b.size), (a, b)
    assert made.bytes >= made.live_bytes


def _steps(life: Life) -> set[int]:
    return {step for first, last in life.spans for step in range(first, last + 1)}


def test_addresses_are_used_again() -> None:
    chain = [Life(f"b{i}", 64, ((i, i + 1),)) for i in range(10)]
    assert plan(chain).bytes == 128


def test_a_buffer_fills_the_pause_of_another() -> None:
    made = plan([Life("scratch", 64, ((0, 1), (4, 5))), Life("value", 64, ((2, 3),))])
    assert (made.bytes, made.live_bytes) == (64, 64)


def test_where_no_order_is_good_another_is_looked_for() -> None:
    """By size, by duration, by both or by time, each leaves a gap of a quarter."""
    sizes = (4, 2, 4, 2, 2, 2, 4)
    spans = (
        ((0, 1),), ((2, 5), (8, 11)), ((3, 4), (9, 10)), ((4, 5), (10, 11)), ((5, 6), (11, 12)),
        ((5, 7), (11, 14)), ((6, 7), (12, 13)),
    )  # fmt: skip
    pairs = enumerate(zip(sizes, spans, strict=True))
    made = plan([Life(f"b{n}", 64 * size, when) for n, (size, when) in pairs])
    assert made.bytes == made.live_bytes


def _ways(program: Program) -> list[tuple[Stage, ...]]:
    """The orders in which stages may run: section by section, or a whole step and the
    gradients that it did not store.
    """
    separate = tuple(stage for stages in program.sections.values() for stage in stages)
    return [separate, (*program.sections["FWD"], *program.fused, *program.regrad)]


def _reads(program: Program, stage: Stage) -> set[str]:
    """The buffers that a stage reads, by the program's text alone."""
    inside, todo, reads = set(stage.nodes), list(stage.nodes), set[str]()
    while todo:
        for arg in todo.pop().args:
            if arg in inside:
                continue
            if arg in program.places:
                reads.add(program.places[arg])
            else:
                todo.append(arg)
    return reads


@settings(max_examples=60)
@given(training_steps())
def test_no_stage_overwrites_what_a_later_one_reads(graph) -> None:  # type: ignore[no-untyped-def]
    """Walks each order: the last to write any byte of a buffer before a read is its own maker."""
    program = map_graph(simplify(graph))
    for way in _ways(program):
        owner: dict[int, str] = {}
        for stage in way:
            for name in _reads(program, stage):
                assert all(owner.get(byte) == name for byte in _bytes(program, name)), name
            for name in filter(None, (stage.scratch, stage.panels, stage.rows)):
                owner.update(dict.fromkeys(_bytes(program, name), f"{name} of {stage.name}"))
            for root in stage.roots:
                owner.update(dict.fromkeys(_bytes(program, root.buffer), root.buffer))


def _bytes(program: Program, name: str) -> range:
    """The addresses of an arena buffer, by element; nothing for other buffers."""
    buffer = program.buffers[name]
    if buffer.space != "arena":
        return range(0)
    return range(buffer.offset, buffer.offset + buffer.type.bytes, ITEM_BYTES[buffer.type.dtype])
