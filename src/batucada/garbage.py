"""Python's garbage collector while a program is compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_OBJECTS = 100_000


@contextmanager
def collected_rarely() -> Iterator[None]:
    """What a compilation makes lives until its end, by the hundred thousand: at Python's usual
    pace the search for garbage among it and the libraries is a third of a deep model's time.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < _NEW_OBJECTS:
        yield
        return
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
