"""A rank that is killed is named by all others."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import distributed

import batucada as bt
from batucada.runtime.group import collective
from batucada.runtime.lost import reason
from tests.runtime.ranks import run_ranks

SIZE = 3


def reduce_until_one_dies(rank: int, victim: int) -> None:
    bt.join()
    numbers = torch.ones(1000)
    for step in range(1000):
        if rank == victim and step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        with collective("adding up"):
            distributed.all_reduce(numbers)


@pytest.mark.slow
@pytest.mark.parametrize("victim", range(SIZE))
def test_the_rank_that_is_killed_is_named(victim: int) -> None:
    said = run_ranks(reduce_until_one_dies, SIZE, victim, CCL_TIMEOUT="30")
    assert said.pop(victim) is None
    for line in said:
        assert f"adding up failed: rank {victim} does not answer any more (" in line


def test_gloo_is_quoted_without_its_advice() -> None:
    error = "[/pytorch/third_party/gloo/pair.cc:534] Connection closed by peer [1.2.3.4]:5. This is"
    assert reason(RuntimeError(f"{error} typical\nmore")) == "Connection closed by peer [1.2.3.4]:5"
    assert reason(RuntimeError("plain")) == "plain"
