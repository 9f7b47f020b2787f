"""`measure_performance` and `measure_sections`: how fast is the traced program?"""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

import batucada
from batucada.errors import OptionError
from sambaflow.samba.running import write_text
from sambaflow.samba.session import session
from sambaflow.samba.utils.distributed import is_main_process

DEFAULT_ITERATIONS = 100
# Steps before the clock starts: caches, branch predictors and worker threads are warm after these.
WARM_UP_STEPS = 10


@dataclass(frozen=True)
class Measurement:
    """`seconds` that `iterations` steps of `batch_size` samples on each of `world_size` replicas
    took, on the slowest of them.
    """

    iterations: int
    batch_size: int
    seconds: float
    world_size: int

    @property
    def throughput(self) -> float:
        """Samples a second, of all replicas together."""
        return self.world_size * self.batch_size * self.iterations / self.seconds

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
    `json` if given, and returns (samples a second, seconds a step).  With `data_parallel` they are
    of all replicas together, and rank 0 prints them.
    """
    size = _replicated(data_parallel)
    begin = time.perf_counter()
    _say(f"Measuring peformance with world size:  {size}")  # the vendor's spelling: scripts seek it
    names, tensors = session.named(inputs)
    _say("initial run starts.")
    session.program.loop(names, tensors, WARM_UP_STEPS)
    _say("initial run completes.")
    measured = _measure(
        lambda steps: _seconds(lambda: session.program.loop(names, tensors, steps)),
        batch_size, n_iterations, min_duration,
    )  # fmt: skip
    _say(_line("e2e", measured))
    if size > 1:
        _say(f"NOTE: This is the combined throughput for {size} workers")
    _say(f"total duration: {time.perf_counter() - begin} s")
    if json and is_main_process():
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
    to that of a step.  REDUCE is timed together with the BCKWD that it overlaps, and each BCKWD
    has a FWD before it, which is not timed.
    """
    _replicated(data_parallel)
    sections = list(dict.fromkeys(section.type for section in session.program.manifest.sections))
    names, tensors = session.named(inputs)
    found: dict[str, Measurement] = {}
    for section in sections[:num_sections]:

        def steps(count: int, section: str = section) -> float:
            timed = ["BCKWD", section] if section == "REDUCE" else [section]
            seconds = 0.0
            for _ in range(count):
                if "BCKWD" in timed:
                    session.program.run(names, tensors, ["FWD"])
                seconds += _seconds(lambda: session.program.run(names, tensors, timed))
            return seconds

        steps(1)
        found[section] = _measure(steps, batch_size, n_iterations, min_duration)
        _say(_line(section, found[section]))
    if json and is_main_process():
        records = {section: measured.record() for section, measured in found.items()}
        write_text(Path(json), json_format.dumps(records, indent=1) + "\n")
    return {section: measured.latency for section, measured in found.items()}


def _measure(
    steps: Callable[[int], float], batch_size: int, iterations: int, min_duration: float
) -> Measurement:
    """`steps` makes so many and says how many seconds they took."""
    if iterations < 1:
        raise OptionError(f"the number of iterations is {iterations}; expected 1 or more")
    done, own = 0, 0.0
    while True:
        own += steps(iterations)
        done += iterations
        seconds = _slowest(own)
        if seconds >= min_duration:
            return Measurement(done, batch_size, seconds, session.program.replica_count)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _replicated(data_parallel: bool) -> int:
    """How many replicas are measured; with `data_parallel` the program becomes one of them."""
    if data_parallel:
        session.replicate()
    return session.program.replica_count


def _slowest(seconds: float) -> float:
    """The most that any replica took: so all agree when to end."""
    if session.program.replica_count == 1:
        return seconds
    found = torch.tensor(seconds, dtype=torch.float64)
    with batucada.collective("agreeing on the time"):
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return float(found)


def _say(line: str) -> None:
    if is_main_process():
        print(line, flush=True)


def _line(what: str, measured: Measurement) -> str:
    return (
        f"{what}_latency: {measured.seconds} seconds, throughput: {measured.throughput} samples/s, "
        f"measured over {measured.iterations} iterations."
    )
