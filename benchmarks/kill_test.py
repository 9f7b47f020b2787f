"""Kill a training at random moments, resume it, and see that nothing is lost.

    python benchmarks/kill_test.py --kills 100 --ranks 2

Ranks of `examples/data_parallel` are killed (SIGKILL) or told to stop (SIGTERM), one of them or all
at once, while they start, train and write checkpoints; then the same command is given again.  After
each kill every checkpoint must be whole, the newest not older than before, and each equal to the
one of the same step of the training that nobody killed; so must the last one be at the end.  Any
difference ends the test with an error; else it prints one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
from forked import exit_status

from batucada.checkpoint import STATE
from batucada.checkpoint.files import Stored, read_checkpoint

EXAMPLE = Path(__file__).parents[1] / "examples" / "data_parallel"
BATCH, STEPS_APART, EPOCHS = 32, 5, 3
TIMEOUT_S = 60  # of a rank that waits for another; the machine may be busy
END_S = TIMEOUT_S + 30
LONGEST_START_S = 1.0
MOST_CHECKPOINTS = 8
EVERY_CHECKPOINT = 1_000_000


@dataclass
class Figures:
    """What was done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    while_writing: int = 0
    checked: int = 0
    compared: int = 0
    trainings: int = 0
    slowest_end_s: float = 0.0

    def record(self) -> dict[str, Any]:
        return {
            "kills": dict(self.kills), "killed_while_writing": self.while_writing,
            "checkpoints_checked": self.checked, "compared_with_unkilled": self.compared,
            "trainings_completed": self.trainings, "slowest_end_s": round(self.slowest_end_s, 2),
        }  # fmt: skip


class Job:
    """One start of the training: its processes, forked so that none imports torch anew."""

    def __init__(self, home: Path, checkpoints: Path, ranks: int, keep: int) -> None:
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        shared |= {"CCL_TIMEOUT": str(TIMEOUT_S), "OMP_NUM_THREADS": "1"}
        arguments = [
            "run", "--data-parallel", f"-b={BATCH}", "--pef=out/kill/kill.pef", "--width=16",
            "--data-folder=mnist", f"--num-epochs={EPOCHS}", f"--keep={keep}",
            f"--checkpoint-folder={checkpoints}", f"--checkpoint-steps={STEPS_APART}",
        ]  # fmt: skip
        self.log = home / "said"
        self.log.unlink(missing_ok=True)
        self.pids = {
            _fork(home, arguments, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        }
        self.statuses: list[int] = []

    def ended(self) -> bool:
        """Whether all processes have ended by now."""
        for pid in tuple(self.pids):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self.pids.remove(pid)
                self.statuses.append(os.waitstatus_to_exitcode(status))
        return not self.pids

    def wait(self, seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)
        return True

    def kill(self, kind: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            os.kill(pid, kind)

    def fail(self, problem: str) -> NoReturn:
        self.kill(signal.SIGKILL, tuple(self.pids))
        said = self.log.read_text() if self.log.exists() else ""
        sys.exit(f"{problem}\nstatuses {self.statuses}; the ranks said:\n{said[-4000:]}")


def _fork(home: Path, arguments: list[str], environ: dict[str, str]) -> int:
    """The example in a process of its own; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(home)
        os.environ.update(environ)
        log = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(exit_status(lambda: _program(arguments)))
    finally:
        os._exit(1)


def _program(arguments: list[str]) -> None:
    import data_parallel  # pyright: ignore[reportMissingImports]

    data_parallel.main(arguments)


# ---- the test


def run(kills: int, ranks: int, seed: int, home: Path) -> Figures:
    """Kill until `kills` signals have met a running training, then let it come to its end."""
    _prepare(home)
    reference = home / "unkilled"
    job = Job(home, reference, ranks, EVERY_CHECKPOINT)
    if not job.wait(600) or any(job.statuses):
        job.fail("the training fails with nobody killing it")
    figures, chance = Figures(), random.Random(seed)
    checkpoints = home / "checkpoints-0"
    while figures.kills.total() < kills:
        if _attack(home, checkpoints, ranks, chance, figures, reference):
            checkpoints = home / f"checkpoints-{figures.trainings}"
    job = Job(home, checkpoints, ranks, keep=3)
    if not job.wait(600) or any(job.statuses):
        job.fail("the training cannot be resumed")
    _check(job, checkpoints, -1, figures, reference, finished=True)
    return figures


def _prepare(home: Path) -> None:
    """The sample of MNIST, which then needs no download, and the PEF."""
    raw = home / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (EXAMPLE.parent / "data" / "MNIST" / "raw").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    pid = _fork(
        home,
        ["compile", "--data-parallel", "-ws=2", f"-b={BATCH}", "--width=16", "--pef-name=kill"],
        {"OMP_NUM_THREADS": "1"},
    )
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"the example cannot be compiled:\n{(home / 'said').read_text()}")


def _attack(
    home: Path, checkpoints: Path, ranks: int, chance: random.Random, figures: Figures,
    reference: Path,
) -> bool:  # fmt: skip
    """Start or resume the training and kill it; True when it came to its end before that."""
    before = _newest_step(checkpoints)
    job = Job(home, checkpoints, ranks, keep=3)
    done = _until_a_moment(job, checkpoints, chance)
    if not done:
        kind = chance.choice((signal.SIGKILL, signal.SIGTERM))
        pids = sorted(job.pids)
        whole_job = chance.random() < 0.5
        job.kill(kind, pids if whole_job else [chance.choice(pids)])
        figures.kills[f"{kind.name} of {'the job' if whole_job else 'a rank'}"] += 1
        start = time.monotonic()
        if not job.wait(END_S):
            job.fail(f"{len(job.pids)} ranks still run {END_S} s after {kind.name}")
        figures.slowest_end_s = max(figures.slowest_end_s, time.monotonic() - start)
    elif any(job.statuses):
        job.fail("the training fails with nobody killing it")
    figures.while_writing += bool(list(checkpoints.glob(".step-*.partial")))
    finished = done or "Test Accuracy" in job.log.read_text()
    _check(job, checkpoints, before, figures, reference, finished)
    figures.trainings += finished
    return finished


def _until_a_moment(job: Job, checkpoints: Path, chance: random.Random) -> bool:
    """Wait while it starts, or for some checkpoints, or for one that is being written.  True when
    the training ended before that.
    """
    when = chance.choice(("starting", "training", "writing"))
    if when == "starting":
        return job.wait(chance.uniform(0, LONGEST_START_S))
    last = _newest_step(checkpoints) + STEPS_APART * chance.randint(1, MOST_CHECKPOINTS)
    while _newest_step(checkpoints) < last:
        if job.ended():
            return True
        time.sleep(0.002)
    if when == "training":
        return job.wait(chance.uniform(0, 0.1))
    while not list(checkpoints.glob(".step-*.partial")):
        if job.ended():
            return True
    return job.wait(chance.uniform(0, 0.01))


def _newest_step(checkpoints: Path) -> int:
    return max((int(path.name[5:]) for path in checkpoints.glob("step-*")), default=-1)


def _check(
    job: Job, checkpoints: Path, before: int, figures: Figures, reference: Path, finished: bool
) -> None:
    """Every checkpoint is whole, none is lost, and each is what it would have been."""
    newest, last = _newest_step(checkpoints), _newest_step(reference)
    if newest < before:
        job.fail(f"checkpoint {before} is lost: the newest is {newest}")
    for path in sorted(checkpoints.glob("step-*")):
        stored = _whole(path)
        if stored is None:
            job.fail(f"{path} is damaged")
        figures.checked += 1
        twin = reference / path.name
        if twin.exists():
            figures.compared += 1
            if not _same(_state(stored, last), _state(_whole(twin), last)):
                job.fail(f"{path} differs from {twin}")
    if finished and newest != last:
        job.fail(f"the training ended at step {newest}, not {last}")


def _whole(path: Path) -> Stored | None:
    found = read_checkpoint(path)
    return found if isinstance(found, Stored) else None


def _state(stored: Stored | None, last: int) -> Any:
    """Without the epoch after the last step: a training that was told to stop there is still in it,
    one that came to its end is past it.
    """
    assert stored is not None, "the checkpoints of the training that nobody killed are whole"
    state = torch.load(io.BytesIO(stored.files[STATE]), weights_only=True)
    if state["progress"]["step"] == last:
        del state["progress"]
    return state


def _same(one: Any, other: Any) -> bool:
    """The same bits, types and structure."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(EXAMPLE))
    import data_parallel  # noqa: F401  # pyright: ignore[reportMissingImports]

    start = time.monotonic()
    with TemporaryDirectory(prefix="batucada-kill-") as home:
        figures = run(arguments.kills, arguments.ranks, arguments.seed, Path(home))
    shared = {"ranks": arguments.ranks, "seed": arguments.seed}
    print(json.dumps({**shared, **figures.record(), "seconds": round(time.monotonic() - start)}))


if __name__ == "__main__":
    main()
