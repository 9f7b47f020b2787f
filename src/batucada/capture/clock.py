"""How long a capture takes, parted between the compiler and PyTorch with the model's own Python."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class Clock:
    """`pytorch_s` are the seconds in which PyTorch was at work: the model's forward, dispatch,
    autograd, decompositions.  The two call each other."""

    def __init__(self) -> None:
        self.pytorch_s = 0.0
        self._in_pytorch = False
        self._since = time.perf_counter()

    def pytorch(self) -> AbstractContextManager[None]:
        return self._at_work(in_pytorch=True)

    def compiler(self) -> AbstractContextManager[None]:
        return self._at_work(in_pytorch=False)

    @contextmanager
    def _at_work(self, in_pytorch: bool) -> Iterator[None]:
        before = self._in_pytorch
        self._turn(in_pytorch)
        try:
            yield
        finally:
            self._turn(before)

    def _turn(self, to_pytorch: bool) -> None:
        now = time.perf_counter()
        if self._in_pytorch:
            self.pytorch_s += now - self._since
        self._in_pytorch, self._since = to_pytorch, now
