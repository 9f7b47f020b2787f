"""Plans the arena: buffers whose lives do not overlap may share addresses."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

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

    @property
    def steps(self) -> int:
        """A bit for each step: two lives meet where both have one."""
        return sum((1 << last + 1) - (1 << first) for first, last in self.spans)

    @property
    def duration(self) -> int:
        return sum(last + 1 - first for first, last in self.spans)


@dataclass(frozen=True, slots=True)
class Plan:
    offsets: dict[str, int]
    bytes: int
    live_bytes: int  # the largest sum of sizes that live at once: no plan can need less


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


ORDERS: tuple[Callable[[Life], tuple[object, ...]], ...] = (
    lambda life: (-life.size, life.spans, life.name),
    lambda life: (-life.duration, -life.size, life.spans, life.name),
    lambda life: (-life.size * life.duration, life.spans, life.name),
    lambda life: (life.spans, -life.size, life.name),
)
"""Largest first, longest first, both in one, earliest first: none is best for all programs."""


_CLOSE = 1.05  # times the least possible: as good as need be
_MOVES = 20_000  # buffers placed anew in search of a better order, about


def plan(lives: list[Life]) -> Plan:
    """Each at the lowest address where nothing that lives with it lies; the best of all orders."""
    least = _most_alive(lives)
    orders = [sorted(lives, key=order) for order in ORDERS]
    plans = [_placed(order) for order in orders]
    best = min(range(len(plans)), key=lambda n: plans[n][0])
    size, offsets = _improved(orders[best], *plans[best], int(_CLOSE * least))
    return Plan(offsets, size, least)


def _improved(
    order: list[Life], size: int, offsets: dict[str, int], enough: int
) -> tuple[int, dict[str, int]]:
    """Moves one buffer after the other elsewhere in the order, and leaves it where that is no
    worse, until the plan takes no more than `enough`.  The same for the same program.
    """
    random = Random(0)
    for _ in range(_MOVES // max(len(order), 1)):
        if size <= enough:
            break
        moved = order.copy()
        life = moved.pop(random.randrange(len(moved)))
        moved.insert(random.randrange(len(order)), life)
        found, places = _placed(moved)
        if found <= size:
            order, size, offsets = moved, found, places
    return size, offsets


def _placed(lives: list[Life]) -> tuple[int, dict[str, int]]:
    """Bytes in all, and offsets."""
    placed: list[tuple[int, int, int]] = []
    offsets: dict[str, int] = {}
    for life in lives:
        size, steps, start = aligned(max(life.size, 1)), life.steps, 0
        for begin, end, other in placed:
            if end <= start or not steps & other:
                continue
            if begin - start >= size:
                break
            start = end
        offsets[life.name] = start
        insort(placed, (start, start + size, steps))
    return max((end for _, end, _ in placed), default=0), offsets


def _most_alive(lives: list[Life]) -> int:
    changes: dict[int, int] = {}
    for life in lives:
        for first, last in life.spans:
            changes[first] = changes.get(first, 0) + aligned(life.size)
            changes[last + 1] = changes.get(last + 1, 0) - aligned(life.size)
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)
