"""Microseconds a step, Batucada beside its peers: one JSON line a case.

The peers of a case run in turns (A B C A B C ...), so that a slow moment of the machine meets all
of them; a number is the median over the rounds.  `ratio` is eager PyTorch's time over a peer's.

    python benchmarks/bench.py --cases train-1,train-128 --peers session,eager --rounds 9
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REFERENCE = "eager"
WARM_UP_STEPS = 3


def main() -> None:
    arguments = _arguments()
    _pin(arguments.threads)  # before torch, JAX and the runtime look at the machine
    import peers
    import torch
    from workload import CASES

    torch.set_num_threads(arguments.threads)
    chosen = {name: peers.PEERS[name] for name in _names(arguments.peers, peers.PEERS)}
    for name in _names(arguments.cases, CASES):
        with tempfile.TemporaryDirectory() as folder:
            runs, skipped = {}, {}
            for peer, prepare in chosen.items():
                try:
                    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the figures
                        runs[peer] = prepare(CASES[name], Path(folder))
                except peers.MissingPeerError as error:
                    skipped[peer] = str(error)
            times = interleaved(runs, arguments.rounds, arguments.seconds)
        line = {"case": name, "threads": arguments.threads, **_figures(times), "skipped": skipped}
        print(json.dumps(line), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default="", help="names with commas between; default: all")
    parser.add_argument("--peers", default="", help="names with commas between; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="rounds a case (default 7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn (default 0.2)")
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default 1)")
    return parser.parse_args()


def _names(text: str, known: dict) -> list[str]:
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"bench: there is no {name!r}; known: {', '.join(known)}")
    return names


def _pin(threads: int) -> None:
    """Keep the process, and every pool that its libraries start, on the first `threads` cores."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise SystemExit(f"bench: --threads {threads}, but {len(cores)} cores are available")
    os.sched_setaffinity(0, cores[:threads])
    os.environ["SN_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)


def interleaved(
    runs: dict[str, Callable[[int], object]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds a step of each run, one number a round; a turn lasts about `seconds`."""
    counts = {}
    for name, run in runs.items():
        run(WARM_UP_STEPS)
        counts[name] = _steps_in(run, seconds)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(_seconds(run, counts[name]) / counts[name])
    return times


def _steps_in(run: Callable[[int], object], seconds: float) -> int:
    steps = 1
    while (taken := _seconds(run, steps)) < seconds / 4:
        steps *= 2
    return max(1, round(steps * seconds / taken))


def _seconds(run: Callable[[int], object], steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def _figures(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures = {"us": {name: round(1e6 * value, 2) for name, value in medians.items()}}
    figures["us_best"] = {name: round(1e6 * min(values), 2) for name, values in times.items()}
    if REFERENCE in medians:
        reference = medians[REFERENCE]
        figures["ratio"] = {name: round(reference / value, 2) for name, value in medians.items()}
    return figures


if __name__ == "__main__":
    main()
