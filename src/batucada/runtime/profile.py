"""How long each stage of a whole step takes."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from batucada.errors import PefError
from batucada.pef import HostRecord, Manifest, StageRecord, SymbolRecord
from batucada.pef.show import columns
from batucada.runtime.host import HostStage
from batucada.runtime.native import NativeModule
from batucada.runtime.results import given_dtype

_CALIBRATION_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class StageTime:
    """`seconds` of one run of a stage, the fastest that was seen; `host` if PyTorch runs it."""

    stage: StageRecord
    seconds: float
    host: HostRecord | None = None

    @property
    def flops_per_second(self) -> float:
        return self.stage.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Of what the stage must read and write, each byte once."""
        moved = self.stage.bytes_read + self.stage.bytes_written
        return moved / self.seconds if self.seconds else 0.0


def stage_times(
    native: NativeModule, manifest: Manifest, host: Mapping[str, HostStage], table: int, steps: int
) -> tuple[StageTime, ...]:
    """Runs `steps` whole steps on the addresses of `table`."""
    step = manifest.entries["step"]
    on_host = [name in host for name in step.stages]
    rows = [len(list(row)) for native_row, row in groupby(on_host, lambda on: not on) if native_row]
    counts = iter(rows)
    parts: list[_NativePart | _HostPart] = [
        _HostPart(host[name]) if name in host else _NativePart(native, name, next(counts))
        for name in step.parts
    ]
    seconds_per_cycle = _cycle(parts, table)
    fastest = [float("inf")] * len(step.stages)
    for _ in range(max(1, steps)):
        spent = [s for part in parts for s in part.seconds(table, seconds_per_cycle)]
        fastest = list(map(min, fastest, spent))
    return tuple(
        StageTime(manifest.stage_by_name[name], seconds, manifest.host.get(name))
        for name, seconds in zip(step.stages, fastest, strict=True)
    )


class _NativePart:
    """Stages in a row, as one call that notes the processor's counter behind each."""

    def __init__(self, native: NativeModule, name: str, stages: int) -> None:
        if f"{name}.timed" not in native:
            raise PefError(f"{name} was compiled without a way to time it; compile it again")
        self._run = native.function(f"{name}.timed", ctypes.c_void_p, ctypes.c_void_p)
        self._stamps = (ctypes.c_int64 * (stages + 1))()

    def run(self, table: int) -> tuple[float, int]:
        """The time when it began, in seconds and in cycles."""
        begin = time.perf_counter()
        self._run(table, ctypes.addressof(self._stamps))
        return begin, self._stamps[0]

    def seconds(self, table: int, cycle: float) -> list[float]:
        self.run(table)
        return [(end - begin) * cycle for begin, end in pairwise(self._stamps)]


class _HostPart:
    """A stage that PyTorch runs."""

    def __init__(self, stage: HostStage) -> None:
        self._stage = stage

    def run(self, table: int) -> None:
        self._stage.run(table)

    def seconds(self, table: int, _cycle: float) -> list[float]:
        begin = time.perf_counter()
        self.run(table)
        return [time.perf_counter() - begin]


def _cycle(parts: Sequence[_NativePart | _HostPart], table: int) -> float:
    """Seconds from one count of the processor's counter to the next, over whole steps: a part
    alone would find its inputs' memory used for something else."""
    begins: list[tuple[float, int]] = []
    while len(begins) < 2 or begins[-1][0] - begins[0][0] < _CALIBRATION_SECONDS:
        found = [part.run(table) for part in parts]
        native = [begin for begin in found if begin is not None]
        if not native:
            return 0.0
        begins = [*begins[:1], native[0]]
    (first, first_cycle), (last, last_cycle) = begins
    return (last - first) / (last_cycle - first_cycle)


def random_inputs(symbols: Iterable[SymbolRecord]) -> list[torch.Tensor]:
    """Small normal numbers; zeros where a program may look something up by them."""
    shapes = [(symbol.torch_shape, given_dtype(symbol)) for symbol in symbols]
    return [
        torch.randn(shape).to(dtype)
        if dtype.is_floating_point or dtype.is_complex
        else torch.zeros(shape, dtype=dtype)
        for shape, dtype in shapes
    ]


def profile_text(times: Sequence[StageTime]) -> str:
    """A table, the slowest stage first."""
    total = sum(time.seconds for time in times)
    rows = [("stage", "us", "%", "GFLOP/s", "GB/s", "kind", "threads", "ops", "source")]
    rows += [_row(time, total) for time in sorted(times, key=lambda time: -time.seconds)]
    flops = sum(time.stage.flops for time in times if time.host is None)
    head = f"{total * 1e6:.1f} us, {flops / 1e6:.2f} Mflop, {flops / total / 1e9:.1f} GFLOP/s"
    return "\n".join([head, *_host_share(times, total), columns(rows, right=(1, 2, 3, 4))])


def _row(found: StageTime, total: float) -> tuple[str, ...]:
    stage, host = found.stage, found.host
    rate = f"{found.flops_per_second / 1e9:.1f}" if host is None else "-"
    numbers = (
        f"{found.seconds * 1e6:.1f}", f"{100 * found.seconds / total:.1f}",
        rate, f"{found.bytes_per_second / 1e9:.1f}",
    )  # fmt: skip
    if host is not None:
        return (stage.name, *numbers, stage.kind, "torch's", host.target, host.source)
    threads = "many" if stage.parallel else "one"
    ops, source = " ".join(stage.ops), next(iter(stage.sources), "")
    return (stage.name, *numbers, stage.kind, threads, ops, source)


def _host_share(times: Sequence[StageTime], total: float) -> list[str]:
    seconds = [time.seconds for time in times if time.host is not None]
    if not seconds:
        return []
    share = f"{sum(seconds) * 1e6:.1f} us, {100 * sum(seconds) / total:.1f} % of the step"
    return [f"PyTorch runs {len(seconds)} of {len(times)} stages: {share}"]
