"""Runs a function in several processes that find one another as a launcher's would."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from batucada.errors import BatucadaError

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["batucada.program", "batucada.runtime.group", "torch._dynamo"])
_numbers = itertools.count()


def launcher_environment(rank: int, size: int, job: str) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "PMIX_NAMESPACE": job,
    }  # fmt: skip


def new_job() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def run_ranks(
    function: Callable[..., Any], size: int, *args: Any, timeout: float = 60, **environ: str
) -> list[Any]:
    """`function(rank, *args)` of every rank: its result, or the message of its BatucadaError; None
    for a process that died.
    """
    job = new_job()
    processes, ends = [], []
    for rank in range(size):
        here, there = _CONTEXT.Pipe(duplex=False)
        variables = launcher_environment(rank, size, job) | environ
        process = _CONTEXT.Process(target=_rank, args=(there, variables, function, rank, *args))
        process.start()
        there.close()
        processes.append(process)
        ends.append(here)
    try:
        return [_answer(end, timeout) for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(end: Connection, timeout: float) -> Any:
    if not wait([end], timeout):
        raise TimeoutError("a rank gave no answer")
    try:
        found = torch.load(io.BytesIO(end.recv_bytes()), weights_only=False)
    except EOFError:
        return None
    if isinstance(found, AssertionError):
        raise found
    return found


def _rank(
    answer: Connection, environ: dict[str, str], function: Callable[..., Any], rank: int, *args: Any
) -> None:
    os.environ.update(environ)
    torch.set_num_threads(1)
    try:
        found = function(rank, *args)
    except BatucadaError as error:
        found = f"{type(error).__name__}: {error}"
    except Exception:
        found = AssertionError(traceback.format_exc())
    data = io.BytesIO()
    torch.save(found, data)
    answer.send_bytes(data.getvalue())
    answer.close()
