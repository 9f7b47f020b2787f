"""Ranks of one machine add up their gradients in memory that all of them reach, where that is asked
for.

Gloo would carry every byte through the kernel, and each rank's processor would copy it twice.
"""

from __future__ import annotations

import mmap
import os
import platform
import secrets
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import distributed

from batucada.config import Options
from batucada.pef import PlaceRecord
from batucada.runtime.group import patience_seconds
from batucada.runtime.rendezvous import ranks_text
from batucada.runtime.results import torch_dtype

_MARKS_BYTES = mmap.PAGESIZE  # before the gradients
_FULL, _ADDED = 0, 8  # where the marks are, in 8 bytes: each in a cache line of its own
_LARGEST_PIECE = 2**15 - 64  # elements: PyTorch adds so few with one thread, and they stay in cache
_ALIGNED = 64  # elements
_AWAKE_SECONDS, _NAP_SECONDS = 1e-3, 5e-5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Offer:
    """An open file that is in no folder: whoever knows these can map it."""

    process: int
    descriptor: int
    name: str

    def mapped(self, size: int) -> mmap.mmap:
        """OSError unless it is there: on this machine, in this container, for this user."""
        path = f"/proc/{self.process}/fd/{self.descriptor}"
        if self.name not in os.readlink(path):
            raise FileNotFoundError(path)
        descriptor = os.open(path, os.O_RDWR)
        try:
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Of each rank, in order: a mapped file, and a descriptor that tells when its process ends."""

    files: tuple[mmap.mmap, ...]
    processes: tuple[int, ...]

    def block(self, rank: int) -> np.ndarray:
        """A rank's memory for gradients, in bytes."""
        return np.frombuffer(self.files[rank], np.uint8)[_MARKS_BYTES:]


def shared_memory(size: int) -> SharedMemory | None:
    """`size` bytes of every rank; None on all of them where one cannot reach another's.

    All ranks must call it.
    """
    offer = _offered(size)
    offers = _gathered(offer)
    found = _mapped(offers, size)
    everyone = all(_gathered(found is not None))
    if offer is not None:
        os.close(offer.descriptor)
    return found if everyone else None


def _offered(size: int) -> _Offer | None:
    if Options().with_environment().reduce != "shared":
        return None
    if platform.machine() != "x86_64":  # elsewhere a mark may be seen before the sums it tells of
        return None
    name = f"batucada-{secrets.token_hex(8)}"
    with suppress(OSError):
        descriptor = os.memfd_create(name)
        os.ftruncate(descriptor, _MARKS_BYTES + size)
        return _Offer(os.getpid(), descriptor, name)
    return None


def _gathered(value: _T) -> list[_T]:
    found = [value] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def _mapped(offers: Sequence[_Offer | None], size: int) -> SharedMemory | None:
    files, processes = list[mmap.mmap](), list[int]()
    with suppress(OSError):
        for offer in offers:
            if offer is None:
                return None
            files.append(offer.mapped(_MARKS_BYTES + size))
            processes.append(_process(offer.process))
        return SharedMemory(tuple(files), tuple(processes))
    return None


@cache
def _process(number: int) -> int:
    """A descriptor that can be read from when the process has ended."""
    return os.pidfd_open(number)


class SharedSums:
    """The sums of buckets over all ranks.  Each rank adds up a part of every bucket, in the order
    of ranks, and writes the sums to all.

    Buckets are counted, over all steps: a rank marks how many of its own are full, and up to
    which it has added its parts.
    """

    def __init__(self, memory: SharedMemory, buckets: Sequence[PlaceRecord]) -> None:
        rank, size = distributed.get_rank(), len(memory.files)
        self._processes = memory.processes
        self._ended = select.poll()
        for process in memory.processes:
            self._ended.register(process, select.POLLIN)
        self._marks = [memoryview(file)[:_MARKS_BYTES].cast("q") for file in memory.files]
        self._own = self._marks[rank]
        self._pieces = [_pieces(memory, bucket)[rank::size] for bucket in buckets]
        self._before = -len(buckets)  # full buckets of the steps before
        self._patience_seconds = patience_seconds()

    def begin(self, number: int) -> None:
        """This rank has filled that bucket."""
        if number == 0:
            self._before += len(self._pieces)
        self._own[_FULL] = self._before + number + 1

    def finish(self, number: int) -> None:
        """Wait until that bucket holds the sums; all must have begun."""
        if number == 0:
            for count, pieces in enumerate(self._pieces, self._before + 1):
                self._wait(_FULL, count)
                _add(pieces)
                self._own[_ADDED] = count
        self._wait(_ADDED, self._before + number + 1)

    def _wait(self, mark: int, count: int) -> None:
        """Until every rank has come so far.  RuntimeError when one never will."""
        start = time.monotonic()
        while self._late(mark, count):
            waited = time.monotonic() - start
            if waited < _AWAKE_SECONDS:
                os.sched_yield()
                continue
            time.sleep(_NAP_SECONDS)
            ended = dict(self._ended.poll(0))  # before the last look at its marks
            gone = [rank for rank in self._late(mark, count) if self._processes[rank] in ended]
            if gone:
                raise RuntimeError(f"the process of {ranks_text(gone)} has ended")
            if waited > self._patience_seconds:
                raise RuntimeError(f"Timed out after {waited:.0f} s")

    def _late(self, mark: int, count: int) -> list[int]:
        return [rank for rank, marks in enumerate(self._marks) if marks[mark] < count]


def _pieces(memory: SharedMemory, bucket: PlaceRecord) -> list[tuple[torch.Tensor, ...]]:
    """The same few elements of every rank, for all elements in turn."""
    size, dtype = len(memory.files), torch_dtype(bucket)
    share = -(-bucket.shape[0] // (size * _ALIGNED)) * _ALIGNED
    elements = min(_LARGEST_PIECE, share)
    own = slice(bucket.offset, bucket.offset + bucket.bytes)
    blocks = [torch.from_numpy(memory.block(rank)[own]).view(dtype) for rank in range(size)]
    return list(zip(*(block.split(elements) for block in blocks), strict=True))


def _add(pieces: Sequence[tuple[torch.Tensor, ...]]) -> None:
    for first, *others in pieces:
        for other in others:
            first.add_(other)
        for other in others:
            other.copy_(first)
