"""What a program does with the other ranks that run it: it starts from rank 0's values, and reduces
gradients, bucket by bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import distributed

from batucada.errors import PefMismatchError
from batucada.ops.random import RUN, SEED
from batucada.pef import Manifest, PlaceRecord
from batucada.pef.manifest import manifest_text
from batucada.runtime.device import Device
from batucada.runtime.gloo import GlooSums
from batucada.runtime.group import collective, keep_gloo_from_preempting
from batucada.runtime.rendezvous import ranks_text
from batucada.runtime.shared import SharedSums, shared_memory

_REDUCING = "reducing the gradients"


class Replicas:
    """The other ranks, as the program of this one sees them.

    Every gradient starts from 1 / `size` of what it would start from alone, so that their sum over
    the ranks is their mean.
    """

    def __init__(self, device: Device) -> None:
        record = device.manifest.replicas
        assert record is not None
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.reduced = True  # whether the gradients in memory are the mean over all ranks
        self._parts = record.backward
        self._buckets = record.buckets
        self._sums = _sums(device, [bucket.place for bucket in record.buckets])
        self._begun = 0  # buckets that are on their way
        followed = record.followed
        self._followed = device.place(followed) if followed is not None else None
        self.updates_by_bucket = any(bucket.update is not None for bucket in record.buckets)
        keep_gloo_from_preempting()

    def backward(self, call: Callable[[str], None]) -> None:
        """BCKWD by `call`, part by part; each bucket is on its way as soon as it is full."""
        self.reduced = False
        self._begun = 0
        for part in self._parts:
            call(part)
            self._begin(sum(bucket.after == part for bucket in self._buckets))

    def reduce(self) -> None:
        """The mean of the gradients in memory, unless they are that already."""
        for _ in self._arriving():
            pass

    def reduce_and_update(self, call: Callable[[str], None]) -> None:
        """REDUCE, and OPT by `call`, part by part: what a bucket allows runs while those behind it
        are on their way.
        """
        for part in self._arriving():
            if part is not None:
                call(part)

    def _arriving(self) -> Iterator[str | None]:
        """The part of OPT of each bucket, when that is reduced."""
        if self.reduced:
            yield from (bucket.update for bucket in self._buckets)
            return
        self._begin(len(self._buckets) - self._begun)
        self._begun = 0
        for number, bucket in enumerate(self._buckets):
            with collective(_REDUCING):
                self._sums.finish(number)
            yield bucket.update
        if self._followed is not None:
            with collective(_REDUCING):
                distributed.broadcast(self._followed, 0)
        self.reduced = True

    def _begin(self, buckets: int) -> None:
        for _ in range(buckets):
            with collective(_REDUCING):
                self._sums.begin(self._begun)
            self._begun += 1


def _sums(device: Device, buckets: Sequence[PlaceRecord]) -> GlooSums | SharedSums:
    with collective("sharing the memory of gradients"):
        memory = shared_memory(device.gradients.size)
    if memory is None:
        return GlooSums([device.place(bucket) for bucket in buckets])
    device.gradients = memory.block(distributed.get_rank())
    return SharedSums(memory, buckets)


def check_same_program(manifest: Manifest) -> None:
    """PefMismatchError on every rank unless all run the same program."""
    own = program_hash(manifest)
    hashes: list[str] = [""] * distributed.get_world_size()
    with collective("comparing the programs"):
        distributed.all_gather_object(hashes, own)
    other = [rank for rank, found in enumerate(hashes) if found != hashes[0]]
    if other:
        raise PefMismatchError(
            f"rank {distributed.get_rank()}: the ranks run different PEFs: rank 0 has the program"
            f" {hashes[0]}, {ranks_text(other)} {hashes[other[0]]}; give all the same file"
        )


def program_hash(manifest: Manifest) -> str:
    """Of what a program computes and how; when and from where it was compiled does not count."""
    what = replace(manifest, name="", metadata={}, arguments={}, report={})
    fields = json.loads(manifest_text(what))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def share_values(device: Device) -> None:
    """All ranks take over rank 0's parameters, buffers, optimizer state and hyperparameters."""
    for symbol in device.manifest.of_role("parameter", "buffer", "state", "hyper"):
        if symbol.name not in (SEED, RUN):  # each rank draws its own random numbers
            place = PlaceRecord("u8", (symbol.bytes,), symbol.slot, symbol.offset)
            with collective("sharing the first values"):
                distributed.broadcast(device.place(place), 0)
