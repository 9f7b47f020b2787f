"""How long each stage of a whole step takes."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from batucada.errors import PefError
from batucada.pef import Manifest, StageRecord, SymbolRecord
from batucada.pef.show import columns
from batucada.runtime.native import NativeModule
from batucada.runtime.results import torch_dtype


@dataclass(frozen=True, slots=True)
class StageTime:
    """`seconds` of one run of a stage, the fastest that was seen."""

    stage: StageRecord
    seconds: float

    @property
    def flops_per_second(self) -> float:
        return self.stage.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Of what the stage must read and write, each byte once."""
        moved = self.stage.bytes_read + self.stage.bytes_written
        return moved / self.seconds if self.seconds else 0.0


def stage_times(
    native: NativeModule, manifest: Manifest, table: int, steps: int
) -> tuple[StageTime, ...]:
    """Runs `steps` whole steps on the addresses of `table`.  PefError where PyTorch runs a part."""
    if manifest.host:
        raise PefError(f"PyTorch runs {len(manifest.host)} stages: only native ones can be timed")
    names = manifest.entries["step"].stages
    run = native.function("step.timed", ctypes.c_void_p, ctypes.c_void_p)
    stamps = (ctypes.c_int64 * (len(names) + 1))()
    seconds_per_cycle = _cycle(run, table, stamps)
    fastest = [float("inf")] * len(names)
    for _ in range(max(1, steps)):
        run(table, ctypes.addressof(stamps))
        spent = [stamps[i + 1] - stamps[i] for i in range(len(names))]
        fastest = list(map(min, fastest, spent))
    stages = [manifest.stage_by_name[name] for name in names]
    return tuple(StageTime(s, c * seconds_per_cycle) for s, c in zip(stages, fastest, strict=True))


def _cycle(
    run: Callable[[int, int], int], table: int, stamps: ctypes.Array[ctypes.c_int64]
) -> float:
    """Seconds from one count of the processor's counter to the next."""
    place = ctypes.addressof(stamps)
    begin = time.perf_counter()
    run(table, place)
    first = stamps[0]
    while time.perf_counter() - begin < 0.05:
        run(table, place)
    return (time.perf_counter() - begin) / (stamps[len(stamps) - 1] - first)


def random_inputs(symbols: Iterable[SymbolRecord]) -> list[torch.Tensor]:
    """Small normal numbers; zeros where a program may look something up by them."""
    shapes = [(symbol.shape, torch_dtype(symbol)) for symbol in symbols]
    return [
        torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
        for shape, dtype in shapes
    ]


def profile_text(times: Sequence[StageTime]) -> str:
    """A table, the slowest stage first."""
    total = sum(time.seconds for time in times)
    rows = [("stage", "us", "%", "GFLOP/s", "GB/s", "kind", "threads", "ops", "source")]
    for found in sorted(times, key=lambda time: -time.seconds):
        stage = found.stage
        numbers = (
            f"{found.seconds * 1e6:.1f}", f"{100 * found.seconds / total:.1f}",
            f"{found.flops_per_second / 1e9:.1f}", f"{found.bytes_per_second / 1e9:.1f}",
        )  # fmt: skip
        threads = "many" if stage.parallel else "one"
        ops, source = " ".join(stage.ops), next(iter(stage.sources), "")
        rows.append((stage.name, *numbers, stage.kind, threads, ops, source))
    flops = sum(time.stage.flops for time in times)
    head = f"{total * 1e6:.1f} us, {flops / 1e6:.2f} Mflop, {flops / total / 1e9:.1f} GFLOP/s"
    return f"{head}\n{columns(rows, right=(1, 2, 3, 4))}"
