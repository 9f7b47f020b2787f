"""The samples of an epoch, from any place on."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import DistributedSampler

from batucada.checkpoint.ranks import rank, world_size


class ResumableSampler(DistributedSampler):
    """torch's DistributedSampler, which can begin in the middle of an epoch.

    An epoch is one order of all samples, whatever the number of ranks; they take turns in it.  So
    batches of B on N ranks hold together what batches of B / 2 hold on 2 N.  Samples that do not go
    round are left out.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=world_size(),
            rank=rank(),
            shuffle=shuffle,
            seed=seed,
            drop_last=True,
        )
        self._first = 0

    def set_epoch(self, epoch: int, samples: int = 0) -> None:
        """Begin epoch `epoch` after the first `samples`, counted over all ranks."""
        super().set_epoch(epoch)
        self._first = samples

    def __len__(self) -> int:
        return (len(self.dataset) - self._first) // self.num_replicas  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        end = self._first + len(self) * self.num_replicas
        return iter(self._order()[self._first + self.rank : end : self.num_replicas])

    def _order(self) -> list[int]:
        count = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return list(range(count))
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        return torch.randperm(count, generator=generator).tolist()
