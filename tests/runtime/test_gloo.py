"""Sums of buckets over ranks, both ways that Gloo makes them."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import distributed

import batucada as bt
from batucada.runtime.gloo import GlooSums
from tests.runtime.ranks import run_ranks

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = (5, 1000, 150_000)  # elements; the last are too many bytes to be exchanged, but of halves
STEPS = 3


def own(rank: int, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [torch.randn(s, generator=generator).to(d) for s in SIZES for d in DTYPES]


def summed(rank: int, size: int) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
    """Of every step: the sums of the buckets of two programs, all of them on their way at once, and
    a message of the rank before, which is sent before them and received behind them.
    """
    bt.join()
    found = []
    buckets = [[torch.empty_like(values) for values in own(0, 0)] for _ in range(2)]
    programs = [GlooSums(places) for places in buckets]
    for step in range(STEPS):
        told, heard = torch.tensor([float(rank)]), torch.empty(1)
        sent = distributed.isend(told, (rank + 1) % size)
        for program, (sums, places) in enumerate(zip(programs, buckets, strict=True)):
            for number, values in enumerate(own(rank, step)):
                places[number].copy_(values * (program + 1))
                sums.begin(number)
        distributed.barrier()
        for sums in programs:
            for number in range(len(buckets[0])):
                sums.finish(number)
        distributed.recv(heard, (rank - 1) % size)
        assert sent is not None
        sent.wait()
        found.append(([bucket.clone() for places in buckets for bucket in places], heard))
    return found


@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_rank_has_the_same_sums(size: int) -> None:
    found = run_ranks(summed, size, size)
    for step in range(STEPS):
        gathered = [own(rank, step) for rank in range(size)]
        for rank in range(size):
            sums, heard = found[rank][step]
            assert heard == (rank - 1) % size
            for number, bucket in enumerate(sums):
                program, kind = divmod(number, len(gathered[0]))
                assert torch.equal(bucket, found[0][step][0][number])
                expected = torch.stack([values[kind] for values in gathered]).double().sum(0)
                expected = ((program + 1) * expected).to(bucket.dtype)
                eps = torch.finfo(bucket.dtype).eps
                torch.testing.assert_close(bucket, expected, rtol=2 * eps, atol=size * 8 * eps)


def outlived(rank: int) -> torch.Tensor:
    """Rank 1 comes for the last sums when rank 0, which has them, has ended."""
    bt.join()
    bucket = torch.full((5,), float(rank + 1))
    sums = GlooSums([bucket])
    sums.begin(0)
    if rank:
        with suppress(RuntimeError):
            distributed.recv(torch.empty(1), 0)
    sums.finish(0)
    if rank:
        with pytest.raises(RuntimeError, match=r"Connection closed|Broken pipe|reset"):
            sums.begin(0)
    return bucket


def test_a_rank_may_end_when_it_has_the_last_sums() -> None:
    for found in run_ranks(outlived, 2):
        assert torch.equal(found, torch.full((5,), 3.0))
