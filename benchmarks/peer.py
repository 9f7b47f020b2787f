"""One peer of one case in a process of its own: what `bench.py` starts.

    python benchmarks/peer.py CASE PEER THREADS FOLDER

On its standard output a line when it is ready (`{"flops": n}`, flops of a step where it knows them)
or why it cannot be (`{"skipped": "..."}`); then, for each number of steps that it reads, a line
when they are done.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

OURS = ("session", "loop")


def main() -> None:
    case_name, peer, threads, folder = sys.argv[1:]
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the terminal
    import torch

    torch.set_num_threads(int(threads))
    from peers import PEERS, flops_of
    from workload import CASES

    case = CASES[case_name]
    run = _prepared(PEERS[peer], case, Path(folder), fatal=peer in OURS)
    if isinstance(run, str):
        return _say(lines, {"skipped": run})
    _stay_on(int(threads))
    _say(lines, {"flops": flops_of(case, Path(folder)) if peer == "loop" else 0})
    for steps in sys.stdin:
        run(int(steps))
        _say(lines, {})
    return None


def _say(lines: TextIO, what: dict[str, Any]) -> None:
    lines.write(json.dumps(what) + "\n")


def _prepared(
    prepare: Callable, case: Any, folder: Path, fatal: bool
) -> Callable[[int], object] | str:
    """The function that runs n steps, run once; or why there is none.  What fails of ours is
    `fatal`."""
    from torch_peers import MissingPeerError

    try:
        run = prepare(case, folder)
        run(1)
    except MissingPeerError as error:
        return str(error)
    except Exception as error:
        if fatal:
            raise
        return f"fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    return run


def _stay_on(threads: int) -> None:
    """Keep every thread of this process on the first `threads` cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


if __name__ == "__main__":
    main()
