"""Plans the arena: buffers whose lives do not overlap may share addresses."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from itertools import accumulate

ALIGNMENT = 64
Span = tuple[int, int]
"""The first and the last step of the schedule, both included."""


@dataclass(frozen=True, slots=True)
class Life:
    """A buffer of `size` bytes and when it is needed: at least one span, in order, none touching
    another.
    """

    name: str
    size: int
    spans: tuple[Span, ...]

    def meets(self, other: Life) -> bool:
        mine, theirs = self.spans, other.spans
        if mine[-1][1] < theirs[0][0] or theirs[-1][1] < mine[0][0]:
            return False
        return any(a <= d and c <= b for a, b in mine for c, d in theirs)


@dataclass(frozen=True, slots=True)
class Plan:
    offsets: dict[str, int]
    bytes: int
    live_bytes: int  # the largest sum of sizes that live at once: no plan can need less


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan(lives: list[Life]) -> Plan:
    """Largest first, each at the lowest address where nothing that lives with it lies."""
    placed: list[tuple[int, int, Life]] = []
    offsets: dict[str, int] = {}
    for life in sorted(lives, key=lambda x: (-x.size, x.spans, x.name)):
        size = aligned(max(life.size, 1))
        start = 0
        for begin, end, other in placed:
            if end <= start or not life.meets(other):
                continue
            if begin - start >= size:
                break
            start = max(start, end)
        offsets[life.name] = start
        insort(placed, (start, start + size, life), key=lambda p: p[0])
    total = max((end for _, end, _ in placed), default=0)
    return Plan(offsets, total, _most_alive(lives))


def _most_alive(lives: list[Life]) -> int:
    changes: dict[int, int] = {}
    for life in lives:
        for first, last in life.spans:
            changes[first] = changes.get(first, 0) + aligned(life.size)
            changes[last + 1] = changes.get(last + 1, 0) - aligned(life.size)
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)
