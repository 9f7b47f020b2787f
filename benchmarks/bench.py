"""Microseconds a step, Batucada beside its peers: one JSON line a case.

The peers of a case run in turns (A B C A B C ...), so that a slow moment of the machine meets all
of them; a number is the median over the rounds.  Each is a process of its own.  `ratio` is eager
PyTorch's time over a peer's.

    python benchmarks/bench.py --cases train-1,train-128 --peers session,eager --rounds 9
    python benchmarks/bench.py --cases networks --threads 1,2 --keep made --out lines.jsonl

`best_peer` is the fastest that is not ours, `against_best` its time over our loop's; `gflops` is
what our loop reaches, `of_peak` its share of what the cores in use can do on registers alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REFERENCE = "eager"
OURS = ("session", "loop")
WARM_UP_STEPS = 3


def main() -> None:
    arguments = _arguments()
    from peak import peak_gflops
    from peers import PEERS
    from workload import CASES, GROUPS

    names = _names(GROUPS.get(arguments.cases, str(arguments.cases)), CASES)
    peers = _names(arguments.peers, PEERS)
    known = measured(arguments.out)
    with _folder(arguments.keep) as folder:
        for threads in map(int, arguments.threads.split(",")):
            peak = peak_gflops(threads)
            for name in names:
                if (name, threads) not in known:
                    line = _measure(name, threads, peers, peak, folder, arguments)
                    _write(line, arguments.out)


def measured(path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """The lines of a file of figures, by case and threads."""
    if path is None or not path.exists():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["case"], line["threads"]): line for line in lines}


def _measure(
    case: str, threads: int, names: list[str], peak: float, folder: Path,
    arguments: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    from processes import prepared

    start = time.perf_counter()
    peers, skipped = prepared(case, names, threads, folder, arguments.limit, arguments.jobs)
    seconds = round(time.perf_counter() - start, 1)
    line = {"case": case, "threads": threads, "prepared_s": seconds, "skipped": skipped}
    try:
        if not arguments.prepare:
            times = interleaved(peers, arguments.rounds, arguments.seconds)
            flops = peers["loop"].flops if "loop" in peers else 0
            line |= _figures(times) | _of_peak(times, flops, peak)
    finally:
        for peer in peers.values():
            peer.stop()
    return line


def _write(line: dict[str, Any], path: Path | None) -> None:
    print(json.dumps(line), flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    kept.mkdir(parents=True, exist_ok=True)
    yield kept.resolve()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])

    def option(name: str, help: str, **kind: Any) -> None:
        parser.add_argument(name, help=help, **kind)

    option("--cases", "names with commas between, or ffn (default) or networks", default="ffn")
    option("--peers", "names with commas between; default: all", default="")
    option("--rounds", "rounds a case (default 7)", type=int, default=7)
    option("--seconds", "length of a turn (default 0.2)", type=float, default=0.2)
    option("--threads", "cores to use (default 1), or several such numbers: 1,2", default="1")
    option("--limit", "seconds a peer may take to be ready (default 900)", type=float, default=900)
    option("--jobs", "peers that prepare at a time (default 2)", type=int, default=2)
    option("--keep", "folder for what the compilers made; it serves again", type=Path)
    option("--prepare", "compile for --keep and measure nothing", action="store_true")
    option("--out", "file to add lines to; what it has is not measured again", type=Path)
    return parser.parse_args()


def _names(text: str, known: dict) -> list[str]:
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"bench: there is no {name!r}; known: {', '.join(known)}")
    return names


def interleaved(
    runs: Mapping[str, Callable[[int], object]], rounds: int, seconds: float
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
        figures |= {
            "gflops": round(gflops, 1),
            "peak": round(peak, 1),
            "of_peak": round(gflops / peak, 3),
        }
    if "loop" in medians and others:
        best = min(others, key=lambda name: others[name])
        ratio = round(others[best] / medians["loop"], 2)
        figures |= {"best_peer": best, "against_best": ratio}
    return figures


if __name__ == "__main__":
    main()
