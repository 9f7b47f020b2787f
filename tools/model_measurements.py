"""What is measured of a row of the model table, part by part."""

from __future__ import annotations

import os
import signal
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.bench import interleaved
from tests.models.eager import eager_step
from tests.models.row import Row
from tests.models.training import (
    Distance,
    compiled,
    distance,
    loaded,
    named,
    train_eagerly,
    train_here,
)

import batucada as bt

ROUNDS = 7
TURN_SECONDS = 0.2
PEER_SECONDS = 150
"""What `torch.compile` is given for its first step: it compiles then."""
Figures = dict[str, Any]
Step = Callable[[], Any]


def measured(part: str, row: Row, pef: Path) -> Figures:
    """The figures of a part.  `training` leaves the PEF in float32 at `pef`."""
    return {"training": _training, "checked": _checked, "speed": _speed}[part](row, pef)


def _training(row: Row, pef: Path) -> Figures:
    """How far from eager; the shares of the program in float32."""
    single, double = replace(row, double=False), replace(row, double=True)
    program = compiled(single, pef)
    found = _shares(program.manifest)
    if not row.double:
        return found | _apart(distance(row, train_here(row, program), train_eagerly(row)))
    here = train_here(single, program)
    twin = compiled(double, pef.with_name("double.pef"))
    exact = train_eagerly(double)
    return {
        **found,
        **_apart(distance(double, train_here(double, twin), exact)),
        "here_from_double": _apart(distance(double, here, exact)),
        "eager_from_double": _apart(distance(double, train_eagerly(single), exact)),
    }


def _apart(found: Distance) -> dict[str, float]:
    return {"loss_error": found.loss, "state_error": found.state}


def _shares(manifest: bt.Manifest) -> Figures:
    stages = [manifest.stage_by_name[name] for name in manifest.entries["step"].stages]
    native = [stage for stage in stages if stage.name not in manifest.host]
    arena = next(slot.bytes for slot in manifest.slots if slot.name == "arena")
    return {
        "stages": len(stages),
        "native_stages": len(native),
        "flops": sum(stage.flops for stage in stages),
        "native_flops": sum(stage.flops for stage in native),
        "host": Counter(
            manifest.host[stage.name].target for stage in stages if stage.name in manifest.host
        ),
        "arena_bytes": arena,
        "live_bytes": manifest.report["live_bytes"],
    }


def _checked(row: Row, pef: Path) -> Figures:
    """AssertionError where a kernel leaves its buffer."""
    single = replace(row, double=False)
    program = compiled(single, pef.with_name("checked.pef"), bt.Options(checked=True))
    return {"steps": len(train_here(single, program).losses)}


def _speed(row: Row, pef: Path) -> Figures:
    row = replace(row, double=False)
    model, (batch,) = row.model(), row.batches(1)
    timed = pef.with_name("timed.pef")
    start = _processor_seconds()
    bt.compile(model, named(batch), optimizers=[row.optimizer(model)], path=timed, loss_indices=[0])
    compile_seconds = _processor_seconds() - start
    program = loaded(row, timed)
    names, tensors = list(batch), list(batch.values())
    eager, peer = eager_step(row), eager_step(row, torch.compile)
    turns = {
        "here": _repeated(lambda: program.run(names, tensors)),
        "eager": _repeated(lambda: eager(batch)),
    }
    found: Figures = {"compile_s": compile_seconds}
    start = _processor_seconds()
    try:
        with _at_most(PEER_SECONDS):
            peer(batch)
    except (_TimeOut, Exception) as error:
        found["torch_compile_failed"] = str(error) if isinstance(error, _TimeOut) else _kind(error)
    else:
        found["torch_compile_s"] = _processor_seconds() - start
        turns["torch_compile"] = _repeated(lambda: peer(batch))
    times = interleaved(turns, ROUNDS, TURN_SECONDS)
    return {**found, "step_s": {name: statistics.median(took) for name, took in times.items()}}


def _processor_seconds() -> float:
    """Of this process and of the C++ compilers that it has run: all of the time, on one core."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _repeated(step: Step) -> Callable[[int], object]:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


def _kind(error: Exception) -> str:
    return type(error).__name__


class _TimeOut(BaseException):
    """Not an Exception, which the peer might take for a failure of its own."""


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeOut(f"> {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
