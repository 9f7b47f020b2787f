"""Memory that ranks share: whose it is, who adds up what, and when; and what becomes of a rank that
others wait for.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.forked import exit_status

import batucada as bt
from batucada.errors import ReplicaError
from batucada.ir.types import DType
from batucada.pef import PlaceRecord
from batucada.runtime.results import torch_dtype
from batucada.runtime.shared import SharedMemory, _add, _Offer, _pieces
from tests.runtime.ranks import run_ranks
from tests.runtime.test_data_parallel import (
    BATCH,
    NAMES,
    Make,
    batches,
    compiled,
    loaded,
    sgd,
)
from tests.runtime.test_lost import kill


def test_only_the_file_that_was_offered_is_mapped() -> None:
    """Not one of another machine's process that has the same numbers."""
    descriptor = os.memfd_create("batucada-some")
    try:
        os.ftruncate(descriptor, 4096)
        _Offer(os.getpid(), descriptor, "batucada-some").mapped(4096)[:] = bytes(range(256)) * 16
        assert os.pread(descriptor, 3, 4093) == b"\xfd\xfe\xff"
        with pytest.raises(FileNotFoundError):
            _Offer(os.getpid(), descriptor, "batucada-other").mapped(4096)
    finally:
        os.close(descriptor)
    with pytest.raises(FileNotFoundError):
        _Offer(os.getpid(), descriptor, "batucada-some").mapped(4096)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_adds_up_its_part(dtype: DType, ranks: int) -> None:
    for count in (0, 5, 1000, 250_000):
        bucket = PlaceRecord(dtype, (count,), slot=3, offset=64)
        files = [mmap.mmap(-1, mmap.PAGESIZE + 64 + bucket.bytes + 64) for _ in range(ranks)]
        memory = SharedMemory(tuple(files), processes=())
        blocks = [torch.from_numpy(memory.block(rank)) for rank in range(ranks)]
        found = [block[64 : 64 + bucket.bytes].view(torch_dtype(bucket)) for block in blocks]
        for rank, values in enumerate(found):
            values.copy_(torch.randn(count, generator=torch.Generator().manual_seed(rank)))
        expected = sum(found[1:], start=found[0].clone())
        for rank in range(ranks):
            _add(_pieces(memory, bucket)[rank::ranks])
        assert all(torch.equal(values, expected) for values in found)
        assert not any(block[:64].any() or block[-64:].any() for block in blocks)


def left_alone(rank: int, path: Path, act: Callable[[], Any]) -> str:
    """What rank 0 says of the other, which does something else before the third step."""
    said: list[str] = []

    def program() -> None:
        bt.join()
        program = loaded(path, sgd, seed=0)
        program.replicate()
        x, y = batches(1)[0]
        for step in range(3):
            if rank and step == 2:
                act()
            try:
                program.run(NAMES, [x, y])
            except ReplicaError as error:
                said.append(str(error))
                raise

    exit_status(program)
    return said[0] if said else ""


ENDED = r"\(the process of rank 1 has ended\)"


@pytest.mark.parametrize(
    ("act", "timeout_s", "says"),
    [
        (sys.exit, 30, f"rank 1 has ended, without an error of Python's {ENDED}"),
        (kill, 30, f"rank 1 does not answer any more {ENDED}"),
        (partial(time.sleep, 9), 6, r"rank 1 is alive and late: .* \(Timed out after 3 s\)"),
    ],
    ids=["ended", "killed", "late"],
)  # fmt: skip
def test_nobody_waits_for_the_gradients_of_a_rank_that_is_lost(
    act: Callable[[], Any], timeout_s: int, says: str, tmp_path: Path
) -> None:
    path = compiled(tmp_path, sgd, BATCH, data_parallel=True)
    said = run_ranks(
        left_alone, 2, path, act, CCL_TIMEOUT=str(timeout_s), BATUCADA_REDUCE="shared"
    )[0]
    assert re.match(f"rank 0 of 2 .*: reducing the gradients failed: {says}", said), said


def events(rank: int, path: Path, make: Make) -> list[str]:
    """What runs, what is on its way, and what is waited for, in a whole step."""
    bt.join()
    program = loaded(path, make, seed=0)
    program.replicate()
    sums = program._replicas._sums
    found = [type(sums).__name__]
    begin, finish, call = sums.begin, sums.finish, program._call

    def begun(number: int) -> None:
        begin(number)
        found.append(f"begun {number}")

    def finished(number: int) -> None:
        finish(number)
        found.append(f"reduced {number}")

    def called(entry: str) -> None:
        found.append(entry)
        call(entry)

    sums.begin, sums.finish, program._call = begun, finished, called
    x, y = batches(2)[0]
    program.run(NAMES, [x[:BATCH], y[:BATCH]])
    return found


@pytest.mark.parametrize(("reduce", "kind"), [("shared", "SharedSums"), ("gloo", "GlooSums")])
def test_a_bucket_is_updated_before_the_next_is_there(
    reduce: str, kind: str, tmp_path: Path
) -> None:
    path = compiled(tmp_path, sgd, BATCH, data_parallel=True)
    record = bt.load(path).manifest.replicas
    assert record is not None
    assert len(record.buckets) > 2
    for found in run_ranks(events, 2, path, sgd, BATUCADA_REDUCE=reduce):
        assert found[:2] == [kind, "fwd"]
        end = found.index("reduced 0")
        expected = list[str]()
        for part in record.backward:
            full = (n for n, bucket in enumerate(record.buckets) if bucket.after == part)
            expected += [part, *(f"begun {number}" for number in full)]
        assert found[2:end] == expected
        expected = []
        for number, bucket in enumerate(record.buckets):
            expected += [f"reduced {number}"] + [bucket.update] * (bucket.update is not None)
        assert found[end:] == expected
