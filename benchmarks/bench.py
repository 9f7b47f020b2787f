"""Microseconds a step, Batucada beside its peers: one JSON line a case.

The peers of a case run in turns (A B C A B C ...), so that a slow moment of the machine meets all
of them; a number is the median over the rounds.  `ratio` is eager PyTorch's time over a peer's.

    python benchmarks/bench.py --cases train-1,train-128 --peers session,eager --rounds 9
    python benchmarks/bench.py --cases networks --threads 2

`best_peer` is the fastest that is not ours, `against_best` its time over our loop's; `gflops` is
what our loop reaches, `of_peak` its share of what the cores in use can do on registers alone.
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
from typing import Any

REFERENCE = "eager"
OURS = ("session", "loop")
WARM_UP_STEPS = 3


def main() -> None:
    arguments = _arguments()
    _pin(arguments.threads)  # before torch, JAX and the runtime look at the machine
    import peers
    import torch
    from peak import peak_gflops
    from workload import CASES, GROUPS

    torch.set_num_threads(arguments.threads)
    chosen = {name: peers.PEERS[name] for name in _names(arguments.peers, peers.PEERS)}
    peak = peak_gflops() * arguments.threads
    for name in _names(_cases(arguments.cases, GROUPS), CASES):
        with tempfile.TemporaryDirectory() as folder:
            runs, skipped = _prepared(CASES[name], chosen, Path(folder))
            times = interleaved(runs, arguments.rounds, arguments.seconds)
            flops = peers.flops_of(CASES[name], Path(folder)) if "loop" in runs else 0
        figures = _figures(times) | _of_peak(times, flops, peak)
        line = {"case": name, "threads": arguments.threads, **figures, "skipped": skipped}
        print(json.dumps(line), flush=True)


def _prepared(case: Any, chosen: dict[str, Callable], folder: Path) -> tuple[dict, dict]:
    """The peers that can run the case, and why the others cannot."""
    from torch_peers import MissingPeerError

    runs: dict[str, Callable[[int], object]] = {}
    skipped: dict[str, str] = {}
    for peer, prepare in chosen.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for the figures
                runs[peer] = prepare(case, folder)
                runs[peer](1)
        except MissingPeerError as error:
            skipped[peer] = str(error)
        except Exception as error:
            if peer in OURS:
                raise
            runs.pop(peer, None)
            skipped[peer] = f"fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    return runs, skipped


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--cases", default="ffn", help="names with commas between, or ffn (default) or networks"
    )
    parser.add_argument("--peers", default="", help="names with commas between; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="rounds a case (default 7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn (default 0.2)")
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default 1)")
    return parser.parse_args()


def _cases(text: str, groups: dict[str, str]) -> str:
    return groups.get(text, text)


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


def _of_peak(times: dict[str, list[float]], flops: int, peak: float) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    others = {name: value for name, value in medians.items() if name not in OURS}
    figures: dict[str, Any] = {}
    if "loop" in medians:
        gflops = flops / medians["loop"] / 1e9
        figures |= {"gflops": round(gflops, 1), "of_peak": round(gflops / peak, 3)}
    if "loop" in medians and others:
        best = min(others, key=lambda name: others[name])
        ratio = round(others[best] / medians["loop"], 2)
        figures |= {"best_peer": best, "against_best": ratio}
    return figures


if __name__ == "__main__":
    main()
