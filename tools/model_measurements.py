"""What is measured of a row of the model table."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.bench import interleaved
from tests.models.row import Batch, Row
from tests.models.training import (
    compiled,
    distance,
    first,
    loaded,
    named,
    train_eagerly,
    train_here,
)
from torch import Tensor, nn

import batucada as bt

ROUNDS = 7
TURN_SECONDS = 0.2
Step = Callable[[], Any]


def measured(part: str, row: Row, pef: Path) -> dict[str, Any]:
    """The figures of a part.  `memory` needs the PEF that `speed` leaves at `pef`."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    return {
        "speed": _speed, "error": _error, "memory": _memory, "eager-memory": _eager_memory,
    }[part](row, pef)  # fmt: skip


def _single(row: Row) -> Row:
    """Speed and memory are those of float32."""
    return replace(row, double=False)


def _speed(row: Row, pef: Path) -> dict[str, Any]:
    row = _single(row)
    (batch,) = row.batches(1)
    model = row.model()
    start = time.perf_counter()
    bt.compile(model, named(batch), optimizers=[row.optimizer(model)], path=pef, loss_indices=[0])
    compile_seconds = time.perf_counter() - start
    program = loaded(row, pef)
    names, tensors = list(batch), list(batch.values())
    turns = {
        "here": _repeated(lambda: program.run(names, tensors)),
        "eager": _repeated(_eager_step(row, batch, lambda model: model)),
    }
    start = time.perf_counter()
    peer = _eager_step(row, batch, torch.compile)
    try:
        peer()
    except Exception as error:
        found = {"torch_compile_failed": f"{type(error).__name__}"}
    else:
        found = {"torch_compile_s": time.perf_counter() - start}
        turns["torch_compile"] = _repeated(peer)
    times = interleaved(turns, ROUNDS, TURN_SECONDS)
    steps = {name: statistics.median(values) for name, values in times.items()}
    return {"compile_s": compile_seconds, "step_s": steps, **found, **_shares(program.manifest)}


def _eager_step(row: Row, batch: Batch, wrap: Callable[[nn.Module], Any]) -> Step:
    model = row.model()
    optimizer, call = row.optimizer(model), wrap(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = first(call(*batch.values()))
        loss.backward()
        optimizer.step()
        return loss

    return step


def _repeated(step: Step) -> Callable[[int], object]:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


def _shares(manifest: bt.Manifest) -> dict[str, Any]:
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


def _error(row: Row, pef: Path) -> dict[str, Any]:
    program = compiled(row, pef.with_name("error.pef"))
    apart = distance(row, train_here(row, program), train_eagerly(row))
    return {"loss_error": apart.loss, "state_error": apart.state}


def _memory(row: Row, pef: Path) -> dict[str, Any]:
    row = _single(row)
    train_here(row, loaded(row, pef))
    return {"peak_bytes": _peak_bytes()}


def _eager_memory(row: Row, pef: Path) -> dict[str, Any]:
    train_eagerly(_single(row))
    return {"eager_peak_bytes": _peak_bytes()}


def _peak_bytes() -> int:
    """The most that this process had resident; its parent's does not count, as it does in
    getrusage.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
