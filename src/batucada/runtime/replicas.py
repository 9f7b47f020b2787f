"""What a program does with the other ranks that run it: it starts from rank 0's values, and reduces
gradients while the backward pass still runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import distributed

from batucada.errors import PefMismatchError
from batucada.ops.random import RUN, SEED
from batucada.pef import Manifest, PlaceRecord
from batucada.pef.manifest import manifest_text
from batucada.runtime.device import Device
from batucada.runtime.group import collective, keep_gloo_from_preempting
from batucada.runtime.rendezvous import ranks_text

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
        self._buckets = [(bucket, device.place(bucket.place)) for bucket in record.buckets]
        followed = record.followed
        self._followed = device.place(followed) if followed is not None else None
        self._pending: list[distributed.Work] = []  # one for each bucket
        self.updates_by_bucket = any(bucket.update is not None for bucket in record.buckets)
        keep_gloo_from_preempting()

    def backward(self, call: Callable[[str], None]) -> None:
        """BCKWD by `call`, part by part; each bucket is on its way as soon as it is full."""
        self.reduced = False
        self._pending.clear()
        for part in self._parts:
            call(part)
            for bucket, gradients in self._buckets:
                if bucket.after == part:
                    self._start(gradients)

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
            yield from (bucket.update for bucket, _ in self._buckets)
            return
        for _, gradients in self._buckets[len(self._pending) :]:
            self._start(gradients)
        pending, self._pending = self._pending, []
        for (bucket, _), work in zip(self._buckets, pending, strict=True):
            with collective(_REDUCING):
                work.wait()
            yield bucket.update
        if self._followed is not None:
            with collective(_REDUCING):
                distributed.broadcast(self._followed, 0)
        self.reduced = True

    def _start(self, gradients: torch.Tensor) -> None:
        with collective(_REDUCING):
            work = distributed.all_reduce(gradients, async_op=True)
        assert work is not None
        self._pending.append(work)


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
