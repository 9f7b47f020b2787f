"""What the ranks of a data-parallel run tell each other around a checkpoint.

A process that runs alone is rank 0 of 1, and says everything to itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

from batucada.runtime.group import collective
from batucada.runtime.group import rank as rank
from batucada.runtime.group import world_size as world_size


def largest(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Of every number the largest that a rank gives."""
    if world_size() == 1:
        return numbers
    shared = torch.tensor(numbers, dtype=torch.int64)
    with collective("agreeing on a checkpoint"):
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return tuple(shared.tolist())


def of_all(value: Any) -> list[Any]:
    """The value of each rank on rank 0, [] on the others."""
    if world_size() == 1:
        return [value]
    gathered = [None] * world_size() if rank() == 0 else None
    with collective("collecting a checkpoint"):
        distributed.gather_object(value, gathered)
    return gathered or []


def of_rank_0(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    with collective("sharing what rank 0 found"):
        distributed.broadcast_object_list(box)
    return box[0]
