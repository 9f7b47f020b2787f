"""Processes that a test starts, and stops by their own numbers whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PEF = "out/replica/replica.pef"
RUN = ("run", "--data-parallel", "--reduce-on-rdu", "-b", "32", f"--pef={PEF}")
STOP_S = 10.0
_LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "TORCHELASTIC_")
_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A folder with the example, its PEF and its data."""

    folder: Path

    def newest(self, checkpoints: str) -> Path | None:
        found = (self.folder / checkpoints).glob("step-*")
        return max(found, default=None)

    def state(self, checkpoints: str) -> dict[str, Any]:
        """What the newest checkpoint holds."""
        newest = self.newest(checkpoints)
        assert newest is not None, f"no checkpoint in {checkpoints}"
        return torch.load(newest / "state.pt")

    def wait_for_checkpoint(self, checkpoints: str, seconds: float = 90) -> None:
        wait_until(lambda: self.newest(checkpoints) is not None, seconds, "the first checkpoint")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"{what} is not there after {seconds} s"
        time.sleep(0.05)


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """The process, which does not outlive the context."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def alone_environ(**more: str) -> dict[str, str]:
    """The environment without what a launcher that runs the tests has put into it, and with
    `python` and `torchrun` of these tests first on the path.
    """
    own = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_LAUNCHERS) and key not in _RANKS
    }
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shared = {"PATH": programs, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return own | shared | more
