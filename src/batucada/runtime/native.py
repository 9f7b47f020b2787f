"""Object code -> functions that Python can call, and the threads that help them.

On x86-64 a small loader of our own does it, since importing LLVM costs 41 MB; elsewhere LLVM's
does.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from batucada.errors import PefError
from batucada.runtime.elf import LoadedObject

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64


class _Loaded(Protocol):
    """An object in memory, which it keeps alive."""

    def address(self, name: str) -> int | None: ...


class NativeModule:
    """The functions of one object.  They release the interpreter lock while they run."""

    def __init__(self, loaded: _Loaded) -> None:
        self._loaded = loaded

    @classmethod
    def load(cls, object_bytes: bytes) -> NativeModule:
        """PefError when the object is damaged or is not for this machine."""
        if platform.machine() in ("x86_64", "AMD64"):
            return cls(LoadedObject(object_bytes))
        from batucada.runtime.mcjit import JitObject  # LLVM is imported only where it is needed

        return cls(JitObject(object_bytes))

    def __contains__(self, name: str) -> bool:
        return self._loaded.address(name) is not None

    def function(
        self, name: str, *argtypes: Any, restype: Any = ctypes.c_int32
    ) -> Callable[..., Any]:
        """A ctypes function, which keeps this module alive; PefError when the object has none."""
        address = self._loaded.address(name)
        if address is None:
            raise PefError(f"the object code has no function {name!r}")
        found = ctypes.CFUNCTYPE(restype, *argtypes)(address)
        found.module = self  # type: ignore[attr-defined]
        return found


class ThreadPool:
    """`threads` threads, the caller included, that share the module's parallel kernels.

    `address` goes into the table's pool slot.  Workers without work spin briefly, then sleep; they
    end with `close`, at exit, or when the pool is garbage.  After a fork the child has one thread.
    """

    def __init__(self, threads: int, module: NativeModule) -> None:
        if threads < 1:
            raise ValueError(f"a pool needs at least one thread, not {threads}")
        self.threads = threads
        size = module.function("batucada_pool_bytes", _LONG, restype=_LONG)(threads)
        self._memory = ctypes.create_string_buffer(size + 64)
        self.address = -(-ctypes.addressof(self._memory) // 64) * 64
        self._prepare = module.function("batucada_pool_start", _POINTER, _LONG, restype=None)
        self._prepare(self.address, threads)
        self._workers = self._start(module)
        stop = module.function("batucada_pool_stop", _POINTER, restype=None)
        owner = os.getpid()
        self.close = weakref.finalize(
            self, _stop, stop, self.address, self._memory, self._workers, owner
        )
        _LIVE.add(self)

    def _start(self, module: NativeModule) -> list[threading.Thread]:
        work = module.function("batucada_pool_worker", _POINTER, _LONG, restype=None)
        workers = []
        for index in range(1, self.threads):
            name = f"batucada-{index}"
            thread = threading.Thread(
                target=work, args=(self.address, index), name=name, daemon=True
            )
            thread.start()
            workers.append(thread)
        return workers

    def _after_fork(self) -> None:
        """In the child: the workers are gone, so the caller takes every part."""
        self.threads = 1
        self._prepare(self.address, 1)


def _stop(
    stop: Callable[[int], None],
    address: int,
    memory: ctypes.Array[ctypes.c_char],
    workers: list[threading.Thread],
    owner: int,
) -> None:
    """Ends the workers; `memory` is theirs until they have left.  A forked child has none."""
    if os.getpid() != owner:
        return
    stop(address)
    for worker in workers:
        worker.join()


_LIVE: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def _forget_workers() -> None:
    for pool in list(_LIVE):
        pool._after_fork()


os.register_at_fork(after_in_child=_forget_workers)
