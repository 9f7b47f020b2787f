"""The arena plan: what lives at once never shares an address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.ir.types import ITEM_BYTES
from batucada.mapping import Program, map_graph
from batucada.mapping.memory import ALIGNMENT, Life, plan
from batucada.passes.simplify import simplify
from tests.runtime.random_graphs import training_steps


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    found = []
    for number in range(draw(st.integers(0, 20))):
        first = draw(st.integers(0, 10))
        last = draw(st.integers(first, 12))
        found.append(Life(f"b{number}", draw(st.integers(0, 1000)), first, last))
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
            apart_in_time = a.last < b.first or b.last < a.first
            apart_in_space = start + a.size <= other or other + b.size <= start
            assert apart_in_time or apart_in_space or 0 in (a.size, b.size), (a, b)
    assert made.bytes >= made.live_bytes


def test_addresses_are_used_again() -> None:
    chain = [Life(f"b{i}", 64, i, i + 1) for i in range(10)]
    assert plan(chain).bytes == 128


def _writes(program: Program) -> list[tuple[set[str], set[str]]]:
    """(read, written) buffers of every stage of a whole step, by the program's text alone."""
    step = (
        (*program.sections["FWD"], *program.fused)
        if program.fused
        else tuple(stage for stages in program.sections.values() for stage in stages)
    )
    found = []
    for stage in step:
        inside, todo, reads = set(stage.nodes), list(stage.nodes), set[str]()
        while todo:
            for arg in todo.pop().args:
                if arg in inside:
                    continue
                if arg in program.places:
                    reads.add(program.places[arg])
                else:
                    todo.append(arg)
        found.append((reads, {root.buffer for root in stage.roots}))
    return found


@settings(max_examples=60)
@given(training_steps())
def test_no_stage_overwrites_what_a_later_one_reads(graph) -> None:  # type: ignore[no-untyped-def]
    """Walks the schedule: the last to write any byte of a buffer before a read is its own maker."""
    program = map_graph(simplify(graph))
    owner: dict[int, str] = {}
    for reads, writes in _writes(program):
        for name in reads:
            assert all(owner.get(byte) == name for byte in _bytes(program, name)), name
        for name in writes:
            owner.update(dict.fromkeys(_bytes(program, name), name))


def _bytes(program: Program, name: str) -> range:
    """The addresses of an arena buffer, by element; nothing for other buffers."""
    buffer = program.buffers[name]
    if buffer.space != "arena":
        return range(0)
    return range(buffer.offset, buffer.offset + buffer.type.bytes, ITEM_BYTES[buffer.type.dtype])
