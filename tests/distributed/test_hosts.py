"""Training across two hosts, and what becomes of it when a cable, a rank or a PEF is bad."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from batucada.checkpoint.files import Stored, read_checkpoint
from tests.distributed.hosts import Host, missing, two_hosts
from tests.distributed.processes import RUN, Place, alone_environ
from tests.distributed.ranks import Rank, start_rank

REASON = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "two hosts")]
TIMEOUT_S = 12
# Until the time-out, then to look who is silent, and to end on a busy machine.
END_S = TIMEOUT_S + 20
LONG = "--num-epochs=100000"
Start = Callable[..., list[Rank]]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def start(hosts: tuple[Host, Host], place: Place, tmp_path) -> Iterator[Start]:
    """Starts the example, a rank on each host; each takes `flags` and one of `own`."""
    with ExitStack() as stack:

        def started(*flags: str, own: tuple[tuple[str, ...], ...] = ((), ())) -> list[Rank]:
            made = []
            for number, (host, more) in enumerate(zip(hosts, own, strict=True)):
                environ = {
                    "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29500", "WORLD_SIZE": "2",
                    "RANK": str(number), "LOCAL_RANK": "0", "CCL_TIMEOUT": str(TIMEOUT_S),
                    "OMP_NUM_THREADS": "1",
                }  # fmt: skip
                log = tmp_path / f"rank{number}"
                made.append(start_rank(host, place.folder, log, environ, *RUN, *flags, *more))
                stack.callback(made[-1].kill)
            return made

        yield started


def trained_a_while(start: Start, place: Place, name: str) -> list[Rank]:
    ranks = start(LONG, "--checkpoint-steps=20", f"--checkpoint-folder={name}")
    place.wait_for_checkpoint(name, END_S + 30)
    return ranks


def ended_naming(rank: Rank, other: int) -> None:
    status, said = rank.end(END_S)
    assert status == 2, (status, said)
    assert f"failed: rank {other} does not answer any more (" in said
    assert "Traceback" not in said


def nothing_half_written(place: Place, name: str) -> None:
    folder = place.folder / name
    assert not list(folder.glob(".step-*"))
    found = [read_checkpoint(path) for path in folder.glob("step-*")]
    assert found
    assert all(isinstance(one, Stored) for one in found), found


def test_training_to_the_end(start: Start, place: Place) -> None:
    for rank in start("--num-epochs=1", "--checkpoint-folder=far"):
        status, said = rank.end(END_S + 30)
        assert status == 0, said
    assert place.state("far")["progress"]["step"] == 93


def test_the_cable_is_cut(start: Start, place: Place, hosts: tuple[Host, Host]) -> None:
    ranks = trained_a_while(start, place, "cut")
    hosts[1].cut()
    try:
        ended_naming(ranks[0], 1)
        ended_naming(ranks[1], 0)
    finally:
        hosts[1].mend()
    nothing_half_written(place, "cut")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_is_killed(start: Start, place: Place, victim: int) -> None:
    ranks = trained_a_while(start, place, f"killed{victim}")
    os.kill(ranks[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    ended_naming(ranks[1 - victim], victim)
    assert time.monotonic() - killed < END_S
    if victim == 1:
        nothing_half_written(place, "killed1")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_is_stopped(start: Start, place: Place, victim: int) -> None:
    ranks = trained_a_while(start, place, f"stopped{victim}")
    os.kill(ranks[victim].pid, signal.SIGSTOP)
    ended_naming(ranks[1 - victim], victim)
    os.kill(ranks[victim].pid, signal.SIGCONT)
    status, said = ranks[victim].end(END_S)
    assert status == 2, (status, said)
    nothing_half_written(place, f"stopped{victim}")


def test_a_rank_has_another_pef(start: Start, place: Place) -> None:
    flags = ["compile", "--data-parallel", "-ws", "2", "-b", "32", "--width=32", "--pef-name=other"]
    subprocess.run(
        [sys.executable, "data_parallel.py", *flags],
        check=True, cwd=place.folder, env=alone_environ(), capture_output=True, timeout=120,
    )  # fmt: skip
    other = ("--width=32", "--pef=out/other/other.pef")
    for rank in start("--checkpoint-folder=mixed", own=((), other)):
        status, said = rank.end(END_S)
        assert status == 2, (status, said)
        assert "the ranks run different PEFs: rank 0 has the program " in said
    assert place.newest("mixed") is None
