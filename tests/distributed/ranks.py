"""The example as ranks on two hosts, forked from a process that has imported everything."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.forked import exit_status

from tests.distributed.hosts import Host

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["sambaflow.samba.utils.common", "sambaflow.samba.utils.dataset.mnist"]
)
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Rank:
    """A process of the example, and the file of what it says."""

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self, seconds: float) -> tuple[int | None, str]:
        """Its exit status, None when it still runs after `seconds`, and what it said."""
        self.process.join(seconds)
        return self.process.exitcode, self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def start_rank(
    host: Host, folder: Path, log: Path, environ: dict[str, str], *arguments: str
) -> Rank:
    process = _CONTEXT.Process(
        target=_run, args=(host.name, str(folder), str(log), environ, arguments)
    )
    process.start()
    return Rank(process, log)


def _run(
    host: str, folder: str, log: str, environ: dict[str, str], arguments: tuple[str, ...]
) -> None:
    spoken = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(spoken, 1)
    os.dup2(spoken, 2)
    _move_to(host)
    os.chdir(folder)
    os.environ.update(environ)
    sys.argv = [f"{folder}/data_parallel.py", *arguments]
    os._exit(exit_status(lambda: runpy.run_path(sys.argv[0], run_name="__main__")))


def _move_to(host: str) -> None:
    """Into the network namespace; `os.setns` is there from Python 3.12 on."""
    handle = os.open(f"/run/netns/{host}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {host}")
    os.close(handle)
