"""`samba.profiler.Profiler`: named events and their times."""

from __future__ import annotations

import contextlib
import cProfile
import io
import pstats
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batucada.errors import OptionError
from sambaflow.samba.running import write_text


@dataclass(frozen=True)
class EventHandle:
    """A started event; `start` in seconds of the performance counter."""

    name: str
    start: float


class Profiler:
    """Times in seconds.  `warmup` is the number of first events of a name to leave out."""

    def __init__(self) -> None:
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._profile: cProfile.Profile | None = None

    def start_event(self, name: str) -> EventHandle:
        return EventHandle(name, time.perf_counter())

    def end_event(self, handle: EventHandle) -> None:
        self._times[handle.name].append(time.perf_counter() - handle.start)

    @contextlib.contextmanager
    def event(self, name: str) -> Iterator[None]:
        """Times a `with` block, or, as a decorator, every call of a function."""
        handle = self.start_event(name)
        try:
            yield
        finally:
            self.end_event(handle)

    def _get_iter_times(self, name: str, warmup: int = 0) -> tuple[list[float], int]:
        times = self._times[name][warmup:]
        return times, len(times)

    def get_latencies(self, names: Sequence[str], warmup: int = 0) -> dict[str, float]:
        """Mean seconds of each event; OptionError when one has not happened."""
        return {name: self._mean(name, warmup) for name in names}

    def get_throughputs(
        self, names: Sequence[str], samples_per_iter: int, warmup: int = 0
    ) -> dict[str, float]:
        """Samples a second of each event."""
        return {name: samples_per_iter / self._mean(name, warmup) for name in names}

    def _mean(self, name: str, warmup: int) -> float:
        times, count = self._get_iter_times(name, warmup)
        if not count:
            raise OptionError(
                f"profiler: event {name!r} happened {len(self._times[name])} times, "
                f"of which {warmup} are warm-up"
            )
        return sum(times) / count

    def print_statistics(
        self,
        keys: Sequence[str],
        warmup_steps: int = 0,
        num_samples_per_iter: int = 1,
        measurements: Sequence[str] = ("latency", "throughput"),
    ) -> str:
        """Print and return a line an event."""
        lines = []
        for key in keys:
            latency = self._mean(key, warmup_steps)
            values = {
                "latency": f"{latency:.6f} s",
                "throughput": f"{num_samples_per_iter / latency:.2f} samples/s",
            }
            shown = ", ".join(f"{kind}: {values[kind]}" for kind in measurements if kind in values)
            lines.append(f"{key}: {shown}")
        print("\n".join(lines))
        return "\n".join(lines)

    def start_profile(self) -> None:
        """Profile this process's Python code."""
        self._profile = cProfile.Profile()
        self._profile.enable()

    def stop_profile(self) -> None:
        if self._profile is None:
            raise OptionError("profiler: stop_profile without start_profile")
        self._profile.disable()

    def write(self, path: Path) -> None:
        """Write the functions of the last profile, by cumulative time."""
        if self._profile is None:
            raise OptionError("profiler: nothing was profiled")
        text = io.StringIO()
        pstats.Stats(self._profile, stream=text).sort_stats("cumulative").print_stats()
        write_text(path, text.getvalue())
