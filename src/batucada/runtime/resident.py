"""What this process holds and can do without, given back before a program needs memory."""

from __future__ import annotations

import ctypes
import linecache


def forget_source_lines() -> None:
    """Lines of files that can be read again: libraries inspect their own source while they are
    imported, and `linecache` keeps all of it, several megabytes.  Code that is in no file stays.
    """
    cached = linecache.cache
    for filename in [name for name, entry in cached.items() if len(entry) > 1 and entry[1]]:
        del cached[filename]


def give_back_free_memory() -> None:
    """To the system what this process has freed of its heap, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
