"""What compiling costs, each in a cold process: one JSON line a case.

Seconds of our steps, of the same compilation again (from the cache), and of `torch.compile` with
its caches empty, from a model in memory to the first step; each as [wall, processor], the latter
with child processes.  `again_own_s` are those seconds of the second compilation in which the
compiler was at work, neither PyTorch nor the model's own Python.  `arena` is the planned memory
over the largest sum that lives at once.  A case `gpt:24` has 24 layers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

CASES = ("mlp", "lenet", "resnet18", "unet", "gpt", "lstm")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="names with commas between")
    parser.add_argument("--ours", action="store_true", help="without torch.compile")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for case in arguments.cases.split(","):
        if arguments.child:
            print(json.dumps(CHILDREN[arguments.child](case)))
        else:
            print(json.dumps({"case": case} | times_of(case, arguments.ours)), flush=True)


def times_of(case: str, only_ours: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        first, again = _cold("ours", case, folder), _cold("ours", case, folder)
        own = sum(again["steps"].values()) - again["pytorch_s"]
        return {
            "ours_s": first["seconds"],
            "again_s": again["seconds"],
            "again_steps": again["steps"],
            "again_own_s": round(own, 2),
            "torch_compile_s": None if only_ours else _cold("torch", case, folder)["seconds"],
            "steps": first["steps"],
            "arena": first["arena"],
        }


def _cold(child: str, case: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", child, "--cases", case]
    caches = {"BATUCADA_CACHE": f"{folder}/ours", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"}
    environ = {**os.environ, **caches}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environ)
    return json.loads(done.stdout.splitlines()[-1])


def _processor_seconds() -> float:
    found = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def _since(wall: float, processor: float) -> list[float]:
    return [round(time.perf_counter() - wall, 2), round(_processor_seconds() - processor, 2)]


def _case(name: str) -> Any:
    from workload import CASES

    name, _, layers = name.partition(":")
    case = CASES[name]
    return replace(case, network=partial(case.network, int(layers))) if layers else case


def _ours(name: str) -> dict[str, Any]:
    from peers import named_inputs
    from torch_peers import sgd
    from workload import model_of

    import batucada

    case = _case(name)
    model = model_of(case)
    start = time.perf_counter(), _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pef"
        done = batucada.compile(model, named_inputs(case), optimizers=sgd(model), path=path)
        seconds = _since(*start)
        manifest = batucada.load(path).manifest
    arena = next(slot.bytes for slot in manifest.slots if slot.name == "arena")
    steps = {step: round(value, 2) for step, value in done.report["seconds"].items()}
    ratio = round(arena / max(manifest.report["live_bytes"], 1), 3)
    pytorch_s = round(done.report["pytorch_s"], 2)
    return {"seconds": seconds, "steps": steps, "pytorch_s": pytorch_s, "arena": ratio}


def _torch(name: str) -> dict[str, Any]:
    import torch_peers

    start = time.perf_counter(), _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        torch_peers.compiled_step(_case(name), Path(folder))(1)
    return {"seconds": _since(*start)}


CHILDREN = {"ours": _ours, "torch": _torch}

if __name__ == "__main__":
    main()
