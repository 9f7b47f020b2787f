"""A mapped program -> kernels, the schedules over them, and one LLVM module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise

from batucada.codegen.alike import Likeness, likeness
from batucada.codegen.llvm import ModuleIR, emit_module
from batucada.codegen.lower import Lowered, check_codes, lower_stage
from batucada.codegen.schedule import Call, Loop, Schedule
from batucada.codegen.sweep import lower_sweep
from batucada.codegen.target import Target
from batucada.ir.graph import Node, Section
from batucada.ir.loops import Kernel
from batucada.ir.loops_text import print_kernel
from batucada.mapping import Program, Stage

ENTRY_OF_SECTION = {
    "FWD": "fwd", "BCKWD": "bckwd", "REDUCE": "reduce", "GRADNORM": "gradnorm", "OPT": "opt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A way into the program: the stages it runs.  Native ones in a row are one function
    `i32 name(ptr table)`; where PyTorch runs a stage between them there are several."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def parts(self) -> tuple[tuple[str, tuple[Stage, ...]], ...]:
        """(function, its stages) or (name of a host stage, that stage), in order."""
        runs = [tuple(run) for _, run in groupby(self.stages, lambda stage: stage.on_host)]
        found: list[tuple[str, tuple[Stage, ...]]] = []
        for number, run in enumerate(runs):
            if run[0].on_host:
                found += [(stage.name, (stage,)) for stage in run]
            else:
                found.append((self.name if len(runs) == 1 else f"{self.name}_{number}", run))
        return tuple(found)

    @property
    def on_host(self) -> bool:
        return any(stage.on_host for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Every stage's kernels, and the entries that run them."""

    of_stage: dict[str, tuple[Lowered, ...]]
    entries: tuple[Entry, ...]
    sweep: Lowered | None = None

    @property
    def all(self) -> list[Kernel]:
        """Each kernel once, however many stages share it."""
        found = [lowered.kernel for stage in self.of_stage.values() for lowered in stage]
        found += [self.sweep.kernel] if self.sweep is not None else []
        return list({kernel.name: kernel for kernel in found}.values())


def lower_program(program: Program) -> Kernels:
    codes = check_codes(program)
    entries = _entries(program)
    stages = {s.name: s for entry in entries for s in entry.stages if not s.on_host}
    lowering = _Lowering(program, codes)
    lowered = {name: lowering.of(stage) for name, stage in stages.items()}
    sweep = lower_sweep(program, program.sweep, codes) if program.sweep is not None else None
    return Kernels(lowered, entries, sweep)


class _Lowering:
    """Lowers stages; what was written for one of them serves all that are like it."""

    def __init__(self, program: Program, codes: Mapping[Node, int]) -> None:
        self.program = program
        self.codes = codes
        self.stages: dict[str, tuple[Likeness, tuple[Lowered, ...]]] = {}
        self.kernels: dict[str, Kernel] = {}

    def of(self, stage: Stage) -> tuple[Lowered, ...]:
        like = likeness(self.program, stage, self.codes)
        known = self.stages.get(like.key)
        if known is None:
            new = lower_stage(self.program, stage, self.codes)
            known = like, tuple(self._shared(lowered) for lowered in new)
            self.stages[like.key] = known
        return tuple(_moved(lowered, known[0], like) for lowered in known[1])

    def _shared(self, lowered: Lowered) -> Lowered:
        """The first kernel that does the same, in place of this one.  The text tells 0.0 from
        -0.0.
        """
        text = print_kernel(replace(lowered.kernel, name="kernel"))
        return replace(lowered, kernel=self.kernels.setdefault(text, lowered.kernel))


def _moved(lowered: Lowered, first: Likeness, other: Likeness) -> Lowered:
    """The call for another stage: its buffers, as far in them as its reads are."""
    place = {
        name: (new, start - old_start)
        for (name, old_start), (new, start) in zip(first.buffers, other.buffers, strict=True)
    }
    return replace(lowered, buffers=tuple(place[name] for name, _ in lowered.buffers))


def _entries(program: Program) -> tuple[Entry, ...]:
    """One for each section, `step` for a whole step, `regrad` for gradients that a whole step
    did not store.
    """
    sections = program.sections
    every = tuple(stage for stages in sections.values() for stage in stages)
    step = (*sections["FWD"], *program.fused) if program.fused else every
    found = [Entry(ENTRY_OF_SECTION[s], stages) for s, stages in sections.items() if stages]
    found.append(Entry("step", step))
    parts = {**backward_parts(program), **update_parts(program)}
    found += [Entry(name, stages) for name, stages in parts.items()]
    if program.regrad:
        found.append(Entry("regrad", program.regrad))
    return tuple(found)


def backward_parts(program: Program) -> dict[str, tuple[Stage, ...]]:
    """BCKWD of replicas, cut where a bucket of gradients is full, by the names of the entries."""
    if not program.buckets:
        return {}
    ends = {bucket.stages for bucket in program.buckets} | {len(program.sections["BCKWD"])}
    return _parts(program, "BCKWD", ends)


def update_parts(program: Program) -> dict[str, tuple[Stage, ...]]:
    """OPT of replicas, cut where its stages need another bucket; none where they need all."""
    return _parts(program, "OPT", {bucket.updates for bucket in program.buckets} - {0})


def _parts(program: Program, section: Section, ends: set[int]) -> dict[str, tuple[Stage, ...]]:
    stages, until = program.sections[section], sorted(ends)
    return {part_until(section, end): stages[begin:end] for begin, end in pairwise([0, *until])}


def part_until(section: Section, stages: int) -> str:
    """The name of the part of a section that ends when so many of its stages have run."""
    return f"{ENTRY_OF_SECTION[section]}_until{stages}"


def link(program: Program, kernels: Kernels, target: Target, checked: bool = False) -> ModuleIR:
    """The module: all kernels, a function for each entry, and `loop` for many steps in one call."""
    schedules: list[Schedule | Loop] = []
    for entry in kernels.entries:
        for name, stages in entry.parts:
            if not stages[0].on_host:
                marks = _ends(kernels, stages) if entry.name == "step" else ()
                schedules.append(Schedule(name, tuple(_calls(program, kernels, stages)), marks))
        if entry.name == "step" and not entry.on_host:
            schedules.append(_loop(program, kernels, entry))
    return emit_module(kernels.all, target, schedules, checked)


def _loop(program: Program, kernels: Kernels, step: Entry) -> Loop:
    """Many steps in one call.  With a sweep, the first product of a step runs in the one before."""
    slots, sweep = len(program.slots), program.sweep
    if sweep is None or kernels.sweep is None:
        calls = tuple(_calls(program, kernels, step.stages))
        return Loop("loop", (), calls, calls, slots)
    rest = [s for s in step.stages if s.name not in (sweep.forward.name, sweep.update.name)]
    first = tuple(_calls(program, kernels, [sweep.forward]))
    between = tuple(_calls(program, kernels, rest))
    last = tuple(_calls(program, kernels, [sweep.update]))
    body = (*between, Call(kernels.sweep.kernel.name, _places(program, kernels.sweep)))
    return Loop("loop", first, body, (*between, *last), slots)


def _ends(kernels: Kernels, stages: Iterable[Stage]) -> tuple[int, ...]:
    """The number of each stage's last call."""
    counts = (len(kernels.of_stage[stage.name]) for stage in stages)
    return tuple(total - 1 for total in accumulate(counts))


def _calls(program: Program, kernels: Kernels, stages: Iterable[Stage]) -> Iterable[Call]:
    for stage in stages:
        for lowered in kernels.of_stage[stage.name]:
            buffers = _places(program, lowered)
            yield Call(lowered.kernel.name, buffers, *lowered.trip, lowered.parallel)


def _places(program: Program, lowered: Lowered) -> tuple[tuple[int, int], ...]:
    places = [(program.buffers[name], start) for name, start in lowered.buffers]
    return tuple((buffer.slot, buffer.offset + start) for buffer, start in places)
