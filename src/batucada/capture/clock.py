"""How long a capture takes, parted between the compiler and PyTorch with the model's own Python."""

from __future__ import annotations

import time


class Clock:
    """`pytorch_s` are the seconds in which PyTorch was at work: the model's forward, dispatch,
    autograd, decompositions.  The two call each other."""

    def __init__(self) -> None:
        self.pytorch_s = 0.0
        self._in_pytorch = False
        self._since = time.perf_counter()

    def pytorch(self) -> _AtWork:
        return _AtWork(self, in_pytorch=True)

    def compiler(self) -> _AtWork:
        return _AtWork(self, in_pytorch=False)

    def turn(self, to_pytorch: bool) -> bool:
        """Whether PyTorch was at work before."""
        now, before = time.perf_counter(), self._in_pytorch
        if before:
            self.pytorch_s += now - self._since
        self._in_pytorch, self._since = to_pytorch, now
        return before


class _AtWork:
    """Entered once for every operator: a generator would take three times as long."""

    __slots__ = ("_clock", "_state")

    def __init__(self, clock: Clock, in_pytorch: bool) -> None:
        self._clock, self._state = clock, in_pytorch

    def __enter__(self) -> None:
        self._state = self._clock.turn(self._state)

    def __exit__(self, *_: object) -> None:
        self._clock.turn(self._state)
