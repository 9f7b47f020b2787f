"""`--data-parallel` from compile to measure-performance, as a launcher starts it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.robustness.commands import Done, run, start
from tests.runtime.ranks import launcher_environment, new_job

PROGRAM = Path(__file__).parent / "programs" / "replicas.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with line.pef for replicas and alone.pef for a single process, each of batch 4."""
    folder = tmp_path_factory.mktemp("data-parallel")
    command = ("compile", "-b", 4, "--pef-name")
    done = run(PROGRAM, *command, "line", "--data-parallel", "-ws", 2, folder=folder)
    assert (done.status, done.err) == (0, "")
    assert run(PROGRAM, *command, "alone", folder=folder).status == 0
    return folder


def launched(folder: Path, size: int, *argv: object) -> list[Done]:
    job = new_job()
    ranks = [
        start(PROGRAM, *argv, folder=folder, environ=launcher_environment(rank, size, job))
        for rank in range(size)
    ]
    return [rank.wait() for rank in ranks]


def printed(done: Done) -> list[str]:
    """By the program: PyTorch 2.9 prints a line of its own, too."""
    return [line for line in done.out.splitlines()[1:] if re.match(r"\d/\d |loss ", line)]


def pef(name: str) -> list[str]:
    return ["-b", "4", "--pef", f"out/{name}/{name}.pef"]


def test_replicas_train_with_distributed_samplers(folder: Path) -> None:
    done = launched(folder, 2, "run", *pef("line"), "--data-parallel", "--reduce-on-rdu")
    assert [(d.status, d.err) for d in done] == [(0, ""), (0, "")]
    lines = [printed(d) for d in done]
    assert [line[0].split()[0] for line in lines] == ["0/2", "1/2"]
    assert lines[0][0].split()[1] == lines[1][0].split()[1]
    assert lines[0][1].startswith("loss 0.")
    assert len(lines[1]) == 1


def test_one_process_is_a_job_of_one(folder: Path) -> None:
    """With the flag or without."""
    with_flag = run(PROGRAM, "run", *pef("line"), "--data-parallel", folder=folder)
    assert printed(with_flag)[0].startswith("0/1 ")
    without = run(PROGRAM, "run", *pef("line"), folder=folder)
    assert (without.status, without.err) == (0, "")
    assert printed(without)[0].startswith("0/1 ")


def test_a_pef_that_cannot_reduce_is_refused(folder: Path) -> None:
    for done in launched(folder, 2, "run", *pef("alone"), "--data-parallel"):
        assert "compiled without --data-parallel" in done.refused()
        assert "compile it with --data-parallel -ws 2" in done.refused()


def test_a_rank_with_another_pef_ends_all(folder: Path) -> None:
    job = new_job()
    run(PROGRAM, "compile", "-b", 2, "--data-parallel", "--pef-name", "two", folder=folder)
    started = [
        start(PROGRAM, "run", *flags, "--data-parallel", folder=folder,
              environ=launcher_environment(rank, 2, job))
        for rank, flags in enumerate([pef("line"), ["-b", 2, "--pef", "out/two/two.pef"]])
    ]  # fmt: skip
    for rank, done in enumerate(s.wait() for s in started):
        assert f"rank {rank}: the ranks run different PEFs" in done.refused()


def test_the_combined_throughput_is_measured(folder: Path) -> None:
    argv = ("measure-performance", *pef("line"), "-n", 20, "--data-parallel", "--ws", 2)
    first, second = launched(folder, 2, *argv)
    assert [(d.status, d.err) for d in (first, second)] == [(0, ""), (0, "")]
    assert "Measuring peformance with world size:  2" in first.out
    assert "NOTE: This is the combined throughput for 2 workers" in first.out
    assert "peformance" not in second.out
    warned = run(PROGRAM, *argv, folder=folder)
    assert "explicitly add --ws" in warned.err
    assert "world size:  1" in warned.out


def test_the_world_size_is_no_flag_of_run(folder: Path) -> None:
    done = run(PROGRAM, "run", *pef("line"), "-ws", 2, folder=folder)
    assert "unrecognized arguments: -ws 2" in done.refused()
