"""`measure_performance` and `measure_sections`: how fast is the traced program?"""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from batucada.errors import OptionError
from sambaflow.samba.running import check_single_replica, write_text
from sambaflow.samba.session import session

DEFAULT_ITERATIONS = 100
# Steps before the clock starts: caches, branch predictors and worker threads are warm after these.
WARM_UP_STEPS = 10


@dataclass(frozen=True)
class Measurement:
    """`seconds` that `iterations` steps of `batch_size` samples took."""

    iterations: int
    batch_size: int
    seconds: float

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return self.batch_size * self.iterations / self.seconds

    @property
    def latency(self) -> float:
        """Seconds a step."""
        return self.seconds / self.iterations

    def record(self) -> dict[str, float]:
        return {**asdict(self), "throughput": self.throughput, "latency": self.latency}


def measure_performance(
    model: nn.Module,
    inputs: Any,
    batch_size: int = 1,
    n_chips: int = 1,
    inference: bool = False,
    run_graph_only: bool = False,
    n_iterations: int = DEFAULT_ITERATIONS,
    json: str | None = None,
    compiled_stats_json: str | None = None,
    data_parallel: bool = False,
    reduce_on_rdu: bool = False,
    min_duration: float = 0.0,
    **options: Any,
) -> tuple[float, float]:
    """Run whole steps of the traced program in its native loop, on `inputs` again and again.

    At least `n_iterations` steps and `min_duration` seconds.  Prints the result, writes it to
    `json` if given, and returns (samples a second, seconds a step).
    """
    if data_parallel:
        check_single_replica()
    begin = time.perf_counter()
    print("Measuring peformance with world size:  1")  # the vendor's spelling, which scripts seek
    names, tensors = session.named(inputs)
    print("initial run starts.", flush=True)
    session.program.loop(names, tensors, WARM_UP_STEPS)
    print("initial run completes.", flush=True)
    measured = _measure(
        lambda steps: session.program.loop(names, tensors, steps),
        batch_size, n_iterations, min_duration,
    )  # fmt: skip
    print(_line("e2e", measured))
    print(f"total duration: {time.perf_counter() - begin} s", flush=True)
    if json:
        write_text(Path(json), json_format.dumps(measured.record(), indent=1) + "\n")
    return measured.throughput, measured.latency


def measure_sections(
    model: nn.Module,
    inputs: Any,
    num_sections: int | None = None,
    n_iterations: int = DEFAULT_ITERATIONS,
    batch_size: int = 1,
    data_parallel: bool = False,
    reduce_on_rdu: bool = False,
    json: str | None = None,
    min_duration: float = 0.0,
    **options: Any,
) -> dict[str, float]:
    """Run the first `num_sections` sections one at a time; returns the seconds a run of each.

    A section alone computes what the whole step may fuse with another, so the times do not add up
    to that of a step.
    """
    sections = list(dict.fromkeys(section.type for section in session.program.manifest.sections))
    names, tensors = session.named(inputs)
    found: dict[str, Measurement] = {}
    for section in sections[:num_sections]:

        def steps(count: int, section: str = section) -> None:
            for _ in range(count):
                session.program.run(names, tensors, [section])

        steps(1)
        found[section] = _measure(steps, batch_size, n_iterations, min_duration)
        print(_line(section, found[section]))
    if json:
        records = {section: measured.record() for section, measured in found.items()}
        write_text(Path(json), json_format.dumps(records, indent=1) + "\n")
    return {section: measured.latency for section, measured in found.items()}


def _measure(
    steps: Callable[[int], None], batch_size: int, iterations: int, min_duration: float
) -> Measurement:
    if iterations < 1:
        raise OptionError(f"the number of iterations is {iterations}; expected 1 or more")
    done = 0
    start = time.perf_counter()
    while True:
        steps(iterations)
        done += iterations
        seconds = time.perf_counter() - start
        if seconds >= min_duration:
            return Measurement(done, batch_size, seconds)


def _line(what: str, measured: Measurement) -> str:
    return (
        f"{what}_latency: {measured.seconds} seconds, throughput: {measured.throughput} samples/s, "
        f"measured over {measured.iterations} iterations."
    )
