"""What a program costs besides its steps, each in a cold process: one JSON line a case.

Seconds to compile (from the start of the process, and in the compiler alone), size of the PEF,
seconds to load it, and peak memory of a process that runs it, beside one that uses eager PyTorch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = ("train-1", "train-128", "infer-1")
STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="names with commas between")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--pef", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for case in arguments.cases.split(","):
        if arguments.child:
            print(json.dumps(CHILDREN[arguments.child](case, arguments.pef)))
        else:
            print(json.dumps(cost_of(case)), flush=True)


def cost_of(case: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        pef = Path(folder) / "model.pef"
        start = time.perf_counter()
        compiling = _cold("compile", case, pef)
        process_seconds = time.perf_counter() - start
        running, eager = _cold("run", case, pef), _cold("eager", case, pef)
        return {
            "case": case,
            "compile_process_s": round(process_seconds, 2),
            "compile_s": compiling["seconds"],
            "pef_bytes": pef.stat().st_size,
            "load_s": running["seconds"],
            "peak_mb": {
                "compile": compiling["peak_mb"],
                "run": running["peak_mb"],
                "eager": eager["peak_mb"],
            },
        }


def _cold(child: str, case: str, pef: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", child, "--cases", case, "--pef", str(pef)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _measured(start: float) -> dict[str, float]:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(time.perf_counter() - start, 4), "peak_mb": round(peak_kb / 1024)}


def _compile(case: str, pef: Path) -> dict[str, float]:
    from peers import named_inputs, sgd
    from workload import CASES, model_of

    import batucada

    model = model_of(CASES[case])
    optimizers = sgd(model) if CASES[case].training else ()
    start = time.perf_counter()
    batucada.compile(model, named_inputs(CASES[case]), optimizers=optimizers, path=pef)
    return _measured(start)


def _run(case: str, pef: Path) -> dict[str, float]:
    from workload import CASES, inputs_of

    import batucada

    inputs = inputs_of(CASES[case])
    start = time.perf_counter()
    program = batucada.load(pef)
    seconds = time.perf_counter() - start
    program.loop(list(inputs), list(inputs.values()), STEPS)
    return _measured(start) | {"seconds": round(seconds, 4)}


def _eager(case: str, pef: Path) -> dict[str, float]:
    from torch_peers import eager
    from workload import CASES

    start = time.perf_counter()
    eager(CASES[case], pef.parent)(STEPS)
    return _measured(start)


CHILDREN = {"compile": _compile, "run": _run, "eager": _eager}

if __name__ == "__main__":
    main()
