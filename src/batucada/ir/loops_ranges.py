"""What the loops around an access say about its index."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from batucada.ir.loops import For, Index


class Ranges:
    """The variables of the loops that are open, with the values that they take."""

    def __init__(self) -> None:
        self._ranges: dict[str, range] = {}
        self._limits: dict[str, Index] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._ranges

    @contextmanager
    def open(self, loop: For) -> Iterator[None]:
        self._ranges[loop.variable] = range(loop.start, loop.stop, loop.step)
        if loop.limit is not None:
            self._limits[loop.variable] = loop.limit
        yield
        del self._ranges[loop.variable]
        self._limits.pop(loop.variable, None)

    def span(self, index: Index) -> tuple[int, int] | None:
        """Least and greatest value; None when a register is in it or the code is never reached."""
        if not all(self._ranges.values()) or any(n not in self._ranges for n, _ in index.terms):
            return None
        return -self._greatest(index * -1), self._greatest(index)

    def _greatest(self, index: Index) -> int:
        """An upper bound.  A variable that counts is at most its range's last value, and at most
        its limit less what lies between the values that both can have.
        """
        total = index.offset
        for name, factor in index.terms:
            values = self._ranges[name]
            total += max(values[0] * factor, values[-1] * factor)
        for name, factor in index.terms:
            limit = self._limits.get(name)
            if factor > 0 and limit is not None and all(n in self._ranges for n, _ in limit.terms):
                last = limit + -self._granule(name, limit)
                total = min(total, self._greatest(index + (last + Index.of(name) * -1) * factor))
        return total

    def _granule(self, name: str, limit: Index) -> int:
        """What divides every distance between the variable and its limit."""
        values = self._ranges[name]
        terms = [(factor, self._ranges[n]) for n, factor in limit.terms]
        steps = [factor * math.gcd(r.start, r.step) for factor, r in terms]
        return math.gcd(values.step, limit.offset - values.start, *steps)
