"""Ranks of one machine add up their gradients in memory that all of them reach.

Gloo would carry every byte through the kernel, and each rank's processor would copy it twice.  With
several machines, Gloo carries between them what one has added up.
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
from datetime import timedelta
from functools import cache
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import distributed
from torch.distributed import ProcessGroup

from batucada.pef import PlaceRecord
from batucada.runtime.group import patience_seconds
from batucada.runtime.rendezvous import ranks_text
from batucada.runtime.results import torch_dtype

_MARKS_BYTES = mmap.PAGESIZE  # before the gradients
_FULL, _SUMMED = 0, 8  # where the marks are, in 8 bytes: each in a cache line of its own
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
    """Of each rank of this machine, in order: a mapped file, and a descriptor that tells when its
    process ends.  This rank is at `place` among them; `peers` are the ranks at this place of all
    machines, where there are several.
    """

    files: tuple[mmap.mmap, ...]
    processes: tuple[int, ...]
    place: int
    peers: ProcessGroup | None = None

    def block(self, place: int) -> np.ndarray:
        """A rank's memory for gradients, in bytes."""
        return np.frombuffer(self.files[place], np.uint8)[_MARKS_BYTES:]


def shared_memory(size: int) -> SharedMemory | None:
    """`size` bytes of every rank of this machine; None on all ranks unless there are as many,
    more than one, on each machine.

    All ranks must call it.
    """
    offer = _offered(size)
    offers = _gathered(offer)
    found = _mapped(offers, size)
    reached = _gathered(tuple(found))
    if offer is not None:
        os.close(offer.descriptor)
    machines = sorted(set(reached))
    rank, sizes = distributed.get_rank(), {len(machine) for machine in machines}
    if sorted(chain(*machines)) != list(range(len(offers))) or len(sizes) > 1 or sizes == {1}:
        return None
    peers = _peers(machines) if len(machines) > 1 else None
    files, processes = zip(*found.values(), strict=True)
    return SharedMemory(files, processes, reached[rank].index(rank), peers)


def _peers(machines: Sequence[Sequence[int]]) -> ProcessGroup:
    patience = timedelta(seconds=patience_seconds())
    groups = [distributed.new_group(ranks, patience) for ranks in zip(*machines, strict=True)]
    return next(group for group in groups if isinstance(group, ProcessGroup))


def _offered(size: int) -> _Offer | None:
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


def _mapped(offers: Sequence[_Offer | None], size: int) -> dict[int, tuple[mmap.mmap, int]]:
    """By rank, of those that this one reaches."""
    found: dict[int, tuple[mmap.mmap, int]] = {}
    for rank, offer in enumerate(offers):
        with suppress(OSError):
            if offer is not None:
                found[rank] = offer.mapped(_MARKS_BYTES + size), _process(offer.process)
    return found


@cache
def _process(number: int) -> int:
    """A descriptor that can be read from when the process has ended."""
    return os.pidfd_open(number)


class SharedSums:
    """The sums of buckets over all ranks.  On each machine a rank adds up a part of every bucket,
    in the order of ranks, and writes the sums to all.

    Buckets are counted, over all steps: a rank marks how many of its own are full, and in how
    many its part holds the sums.
    """

    def __init__(self, memory: SharedMemory, buckets: Sequence[PlaceRecord]) -> None:
        self._processes, self._peers = memory.processes, memory.peers
        self._ended = select.poll()
        for process in memory.processes:
            self._ended.register(process, select.POLLIN)
        self._marks = [memoryview(file)[:_MARKS_BYTES].cast("q") for file in memory.files]
        self._own = self._marks[memory.place]
        self._parts = [_Part(memory, bucket) for bucket in buckets]
        self._before = -len(buckets)  # full buckets of the steps before
        self._added = 0  # of the buckets of this step
        self._works: dict[int, distributed.Work] = {}  # of buckets that are between machines
        self._patience_seconds = patience_seconds()

    def begin(self, number: int) -> None:
        """This rank has filled that bucket.  What all have filled is added up."""
        if number == 0:
            self._before += len(self._parts)
            self._added = 0
        self._own[_FULL] = self._before + number + 1
        while self._added <= number and not self._late(_FULL, self._before + self._added + 1):
            self._add()

    def finish(self, number: int) -> None:
        """Wait until that bucket holds the sums; all must have begun."""
        while self._added < len(self._parts):
            self._wait(_FULL, self._before + self._added + 1)
            self._add()
        if number in self._works:
            self._works.pop(number).wait()
            self._parts[number].share()
            self._own[_SUMMED] = self._before + number + 1
        self._wait(_SUMMED, self._before + number + 1)

    def _add(self) -> None:
        """This rank's part of the next bucket."""
        number, part = self._added, self._parts[self._added]
        self._added += 1
        part.add(share=self._peers is None)
        if self._peers is None:
            self._own[_SUMMED] = self._before + number + 1
            return
        work = distributed.all_reduce(part.sums, group=self._peers, async_op=True)
        assert work is not None
        self._works[number] = work

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


class _Part:
    """The part of a bucket that this rank adds up, as every rank of this machine has it."""

    def __init__(self, memory: SharedMemory, bucket: PlaceRecord) -> None:
        size, dtype = len(memory.files), torch_dtype(bucket)
        share = -(-bucket.shape[0] // (size * _ALIGNED)) * _ALIGNED
        whole = slice(bucket.offset, bucket.offset + bucket.bytes)
        own = slice(memory.place * share, (memory.place + 1) * share)
        parts = [
            torch.from_numpy(memory.block(place)[whole]).view(dtype)[own] for place in range(size)
        ]
        self.sums = parts[0]
        self._pieces = list(zip(*(part.split(_LARGEST_PIECE) for part in parts), strict=True))

    def add(self, share: bool) -> None:
        """In the first rank's memory; with `share`, which finds a piece in the cache, in all."""
        for piece in self._pieces:
            first, *others = piece
            for other in others:
                first.add_(other)
            if share:
                _copy(piece)

    def share(self) -> None:
        for piece in self._pieces:
            _copy(piece)


def _copy(piece: Sequence[torch.Tensor]) -> None:
    first, *others = piece
    for other in others:
        other.copy_(first)
