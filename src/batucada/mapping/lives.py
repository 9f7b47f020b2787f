"""When each buffer of the arena is needed.

After FWD there are two ways on: section by section, or the fused step and, if somebody asks for
them, the gradients that it did not store.  What only one way needs is free to be something else on
the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from batucada.ir.graph import Section
from batucada.mapping.memory import Life, Span
from batucada.mapping.program import Stage, Sweep

Way = Sequence[tuple[int, Stage]]
"""Stages in the order in which they run, each with its step."""


def lives(
    sizes: Mapping[str, int],
    sections: Mapping[Section, tuple[Stage, ...]],
    fused: tuple[Stage, ...],
    regrad: tuple[Stage, ...],
    sweep: Sweep | None,
    reads: Callable[[Stage], set[str]],
) -> list[Life]:
    """Of the buffers of the arena, whose bytes `sizes` are; `reads` are those that a stage reads.

    What the fused updates read, which come last there, lives as long as BCKWD: then one way asks
    for hardly anything else than the other.  What a sweep makes for the next step lives throughout
    the fused way, and what its update reads to the end of it: the native loop runs that update
    last.
    """
    apart = [stage for found in sections.values() for stage in found]
    steps = list(enumerate((*apart, *fused, *regrad)))
    forward, backward = len(sections["FWD"]), len(sections["FWD"]) + len(sections["BCKWD"])
    separate = _Needs(sizes, steps[: len(apart)], reads)
    ways = [separate]
    if fused:
        behind = (n for n, stage in enumerate(fused) if stage.section != "BCKWD")
        updates = len(apart) + next(behind, len(fused))
        whole = _Needs(sizes, [*steps[:forward], *steps[len(apart) :]], reads)
        whole.keep(sweep)
        for name, found in whole.values.items():
            if any(first < updates <= last for first, last in found):
                separate.extend(name, backward - 1)
        ways.append(whole)
    spans: dict[str, list[Span]] = {name: [] for name in sizes}
    for way in ways:
        for name, found in way.spans(forward, len(apart)).items():
            spans[name] += found
    return [Life(name, sizes[name], _merged(found)) for name, found in spans.items() if found]


class _Needs:
    """The steps of one way at which each buffer is written or read."""

    def __init__(
        self, sizes: Mapping[str, int], way: Way, reads: Callable[[Stage], set[str]]
    ) -> None:
        self.way = way
        self.reads = reads
        self.last = way[-1][0] if way else 0
        self.values: dict[str, list[Span]] = {}  # what is made again lives again
        self.scratch: dict[str, list[Span]] = {}
        for step, stage in way:
            for name in reads(stage) & sizes.keys():
                self._need(name, step)
            for name in {root.buffer for root in stage.roots} & sizes.keys():
                self.values.setdefault(name, []).append((step, step))
            for name in filter(None, (stage.scratch, stage.panels, stage.rows)):
                self.scratch.setdefault(name, []).append((step, step))

    def _need(self, name: str, step: int) -> None:
        found = self.values.setdefault(name, [(step, step)])
        first, last = found[-1]
        found[-1] = min(first, step), max(last, step)

    def extend(self, name: str, step: int) -> None:
        if name in self.values:
            self._need(name, step)

    def keep(self, sweep: Sweep | None) -> None:
        if sweep is None:
            return
        for name in {root.buffer for root in sweep.forward.roots} & self.values.keys():
            self._need(name, 0)
            self._need(name, self.last)
        for name in self.reads(sweep.update) & self.values.keys():
            self._need(name, self.last)

    def spans(self, forward: int, end: int) -> dict[str, list[Span]]:
        """In the steps of all ways: one that leaves the others at `forward` goes on at `end`."""
        found = dict(self.scratch)
        for name, values in self.values.items():
            for first, last in values:
                skips = first < forward and last >= end
                parts = [(first, forward - 1), (end, last)] if skips else [(first, last)]
                found.setdefault(name, []).extend(parts)
        return found


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)
