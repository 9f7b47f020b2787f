"""What a program does with the other ranks that run it: it starts from rank 0's values, and reduces
gradients while the backward pass still runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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
        self._buckets: dict[str, list[torch.Tensor]] = {part: [] for part in record.backward}
        for bucket in record.buckets:
            self._buckets[bucket.after].append(device.place(bucket.place))
        followed = record.followed
        self._followed = device.place(followed) if followed is not None else None
        self._pending: list[distributed.Work] = []
        keep_gloo_from_preempting()

    def backward(self, call: Callable[[str], None]) -> None:
        """BCKWD by `call`, part by part; each bucket is on its way as soon as it is full."""
        self.reduced = False
        for part in self._parts:
            call(part)
            for bucket in self._buckets[part]:
                self._start(bucket)
        self._finish()

    def reduce(self) -> None:
        """The mean of the gradients in memory, unless they are that already."""
        if self.reduced:
            return
        for buckets in self._buckets.values():
            for bucket in buckets:
                self._start(bucket)
        self._finish()

    def _start(self, bucket: torch.Tensor) -> None:
        with collective(_REDUCING):
            work = distributed.all_reduce(bucket, async_op=True)
        assert work is not None
        self._pending.append(work)

    def _finish(self) -> None:
        try:
            with collective(_REDUCING):
                for work in self._pending:
                    work.wait()
                if self._followed is not None:
                    distributed.broadcast(self._followed, 0)
        finally:
            self._pending.clear()
        self.reduced = True


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
