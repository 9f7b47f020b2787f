"""How long a capture takes, parted between the compiler and PyTorch with the model's own Python."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """`pytorch_s` are the seconds in which PyTorch was at work: the model's forward, dispatch,
    autograd, decompositions.  The two call each other."""

    def __init__(self) -> None:
        self.pytorch_s = 0.0
        self._in_pytorch = False
        self._since = time.perf_counter()

    @contextmanager
    def pytorch(self) -> Iterator[None]:
        before = self._turn(to_pytorch=True)
        try:
            yield
        finally:
            self._turn(before)

    @contextmanager
    def compiler(self) -> Iterator[None]:
        before = self._turn(to_pytorch=False)
        try:
            yield
        finally:
            self._turn(before)

    def _turn(self, to_pytorch: bool) -> bool:
        """Who was at work before."""
        before, now = self._in_pytorch, time.perf_counter()
        if before:
            self.pytorch_s += now - self._since
        self._in_pytorch, self._since = to_pytorch, now
        return before
