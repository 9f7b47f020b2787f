"""A rank that is lost is named by all others, with the cause where that can be known."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from benchmarks.forked import exit_status
from torch import distributed

import batucada as bt
from batucada.errors import ReplicaError
from batucada.runtime import group, pulse
from batucada.runtime.group import collective
from batucada.runtime.lost import Beat, last_word, reason, report_of
from tests.runtime.ranks import run_ranks

SIZE, GONE_S = 3, 4.0


def kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_an_error() -> None:
    raise ValueError("no such thing")


def end() -> None:
    raise SystemExit(3)


@dataclass(frozen=True)
class Case:
    """What becomes of a rank while all add up, and what the others say of it in time."""

    act: Callable[[], None]
    victim: int
    says: str
    timeout_s: float = 30.0


SILENT = r"rank {0} does not answer any more \((Read error|Connection closed)"
LATE = r"rank {0} is alive and late: nothing from it for [4-9] s \("
CASES = {
    "killed": Case(kill, 1, SILENT),
    "rank 0 killed": Case(kill, 0, SILENT),
    "an error": Case(raise_an_error, 1, r"rank {0} ended: ValueError: no such thing \(.*lost.py:"),
    "an error of rank 0": Case(raise_an_error, 0, "rank {0} ended: ValueError: no such thing"),
    "an end": Case(end, 2, "rank {0} has ended, without an error of Python's"),
    "late": Case(partial(time.sleep, 15), 2, LATE, timeout_s=10),
    "rank 0 late": Case(partial(time.sleep, 15), 0, LATE, timeout_s=10),
}


def add_up(rank: int, case: Case) -> str:
    """What this rank says in the end."""
    said: list[str] = []

    def program() -> None:
        bt.join()
        numbers = torch.ones(1000)
        for step in range(1000):
            if rank == case.victim and step == 5:
                case.act()
            start = time.monotonic()
            try:
                with collective("adding up"):
                    distributed.all_reduce(numbers)
            except ReplicaError as error:
                late = time.monotonic() - start > case.timeout_s + 1
                said.append(f"too late: {error}" if late else str(error))
                raise

    exit_status(program)
    return said[0] if said else ""


def join_with_one_killed(rank: int) -> str:
    """Rank 1 dies once it has met rank 0, while rank 2 is still expected."""
    pulse._GONE_SECONDS = GONE_S
    if rank == 1:
        group.roll_call = kill
    if rank == 2:
        return "never came"
    start = time.monotonic()
    try:
        bt.join()
    except ReplicaError as error:
        return f"{error} after {time.monotonic() - start:.0f} s"
    return "joined"


@pytest.fixture(scope="module")
def said() -> dict[str, Future[list[Any]]]:
    """Of all jobs, which run at once: they sleep most of the time."""
    pool = ThreadPoolExecutor()
    jobs = {
        name: pool.submit(run_ranks, add_up, SIZE, case, CCL_TIMEOUT=str(case.timeout_s))
        for name, case in CASES.items()
    }
    jobs["joining"] = pool.submit(run_ranks, join_with_one_killed, SIZE, CCL_TIMEOUT="60")
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_lost_rank_is_named(name: str, said: dict[str, Future[list[Any]]]) -> None:
    case, lines = CASES[name], said[name].result()
    del lines[case.victim]
    for line in lines:
        expected = f"rank [012] of 3 .*: adding up failed: {case.says.format(case.victim)}"
        assert re.match(expected, line), line


@pytest.mark.slow
def test_nobody_waits_for_a_rank_that_died(said: dict[str, Future[list[Any]]]) -> None:
    line = said["joining"].result()[0]
    says = "rank 1 does not answer any more, and ranks? (1, )?2 has not joined yet"
    found = re.match(rf"rank 0 of 3 .*: {says} after (\d+) s", line)
    assert found is not None, line
    assert int(found[2]) < 30


def beat(rank: int, begun: int = 5, host: str = "a", starved: int = 0) -> Beat:
    return Beat(rank, begun, idle_s=2.0, word="", host=host, starved=starved)


def test_what_is_said() -> None:
    everyone = {0: (beat(0), 0.0), 1: (beat(1, starved=1), 0.5), 2: (beat(2), 1.0)}

    def report(word: str = "", **lost: tuple[Beat, float]) -> Any:
        seen = everyone | {int(rank[1:]): value for rank, value in lost.items()}
        return report_of(seen, asker=everyone[0][0], world_size=3, word=word)

    assert (report().sure(), report().likely()) == ("", "every rank is there")
    assert report(_2=(beat(2, begun=4), 1.0)).likely() == (
        "rank 2 is alive and late: nothing from it for 3 s"
    )
    silent = report(_2=(beat(2, host="b"), 9.0))
    assert silent.sure() == "rank 2 does not answer any more"
    assert silent.sure(10.0) == ""
    assert report(_2=(beat(2), 9.0)).sure() == (
        "rank 2 does not answer any more; its host has killed a process for lack of memory"
    )
    assert report("rank 2 ended: E", _1=(beat(1), 9.0)).sure() == "rank 2 ended: E"
    alone = report_of({0: everyone[0]}, everyone[0][0], 3, "")
    assert alone.likely() == "of ranks 1, 2 nothing was ever heard by UDP"


def test_last_words() -> None:
    try:
        raise_an_error()
    except ValueError as error:
        said = last_word(1, error)
    assert re.fullmatch(r"rank 1 ended: ValueError: no such thing \(.*test_lost\.py:\d+\)", said)
    assert last_word(1, KeyboardInterrupt()) == "rank 1 ended: KeyboardInterrupt"


def test_gloo_is_quoted_without_its_advice() -> None:
    error = "[/pytorch/third_party/gloo/pair.cc:534] Connection closed by peer [1.2.3.4]:5. This is"
    assert reason(RuntimeError(f"{error} typical\nmore")) == "Connection closed by peer [1.2.3.4]:5"
    assert reason(RuntimeError("plain")) == "plain"
