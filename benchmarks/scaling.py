"""How replicas scale on this machine, what reducing costs, and what a cluster would make of it.

    [BATUCADA_REDUCE=shared] python benchmarks/scaling.py steps --case train-1024 --rounds 15
    python benchmarks/scaling.py network --ranks 2,4,8
    python benchmarks/scaling.py curves --ranks 1,2,4,8 --plot docs/loss-curves.svg
    python benchmarks/scaling.py model --plot docs/scaling.svg

Each prints JSON lines.  `steps` takes turns between one rank alone (the others sleep) and all
ranks, one thread each; times are medians over the rounds, in microseconds a step.  `ceiling` is the
speedup of ranks that exchange nothing: what cores, caches and memory have room for.  `limit` is
that of ranks that reduce their gradients besides, and never wait for one another.  `all_reduce` is
Gloo's of as many bytes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from alpha_beta import Network, efficiency, fitted
from line_plot import line_plot
from torch import distributed

SIZES = tuple(4**n for n in range(5, 13))  # bytes, 1 KiB to 16 MiB
STEP_SECONDS = 0.3  # of steps in a turn
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["batucada.program", "batucada.runtime.group", "torch._dynamo"])
RANKS_OF_A_CLUSTER = (8, 16, 32, 64, 128, 256, 512, 1024)
LINK_GB_PER_S, SWITCHES_US = 25.0, 4 * 0.35
"""Slingshot 11, the network of Frontier, LUMI and Perlmutter: 200 Gbit/s a port (HPE's data sheet
of the Slingshot interconnect), 350 ns a switch, of which two nodes have at most four between them
(De Sensi et al., An In-Depth Analysis of the Slingshot Interconnect, SC 2020)."""
HOSTS = {
    "measured hosts": Network("", alpha_us=318.0, beta_us_per_byte=1 / 1360),
    "assumed hosts": Network("", alpha_us=20.0, beta_us_per_byte=1 / 10_000),
}
"""What Gloo and TCP add to that: as `network --ranks 2` fits it here, a core for each rank, all
else on it too; and assumed, not measured, where the network has cores of its own."""


def main() -> None:
    arguments = _arguments()
    if arguments.what == "model":
        _print_model(arguments)
        return
    sizes = [int(size) for size in arguments.ranks.split(",")]
    lines = [line for size in sizes for line in _launch(size, arguments)]
    if arguments.what == "curves":
        _print_curves(lines, arguments.plot)
        return
    if arguments.what == "network":
        for size in sizes:
            found = fitted([line for line in lines if line["ranks"] == size])
            lines.append({"ranks": size, **found.record()})
    for line in lines:
        print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=(*WORKERS, "model"))
    parser.add_argument("--case", default="train-1024", help="a training case of workload.py")
    parser.add_argument("--ranks", default="2", help="numbers of ranks")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bind", action="store_true", help="a core to each rank, as mpirun does")
    parser.add_argument("--plot", type=Path, help="write a plot to this SVG file")
    parser.add_argument("--step-us", type=float, default=40_000, help="model: a step alone")
    parser.add_argument("--buckets", default="8.5,4.2,4.2,4.2", help="model: megabytes, in order")
    return parser.parse_args()


def _launch(size: int, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines that rank 0 prints, of as many ranks, forked so that none imports torch anew."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = []
        for rank in range(size):
            environ = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "SN_NUM_THREADS": "1"}
            ranks.append(_CONTEXT.Process(target=_rank, args=(arguments, environ, Path(folder))))
            ranks[-1].start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit("a rank failed")
        said = Path(folder, "rank0").read_text()
    yield from map(json.loads, said.splitlines())


def _rank(arguments: argparse.Namespace, environ: dict[str, str], folder: Path) -> None:
    os.environ.update(environ)
    torch.set_num_threads(1)
    if arguments.bind:
        _bind(int(environ["RANK"]))
    with (folder / f"rank{environ['RANK']}").open("w") as said, redirect_stdout(said):
        WORKERS[arguments.what](arguments, folder)


# ---- what a rank does


def _bind(rank: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})


def _program(case_name: str, folder: Path, batch: int | None = None) -> tuple[Any, list, list]:
    """The case, compiled for replicas by rank 0; names and tensors of its inputs."""
    from peers import named_inputs
    from torch_peers import sgd
    from workload import CASES, inputs_of, model_of

    import batucada

    case = CASES[case_name]
    path = folder / f"{case_name}.pef"
    model = model_of(case)
    if distributed.get_rank() == 0:
        options = batucada.Options(data_parallel=True)
        arguments = named_inputs(case)
        batucada.compile(model, arguments, optimizers=sgd(model), path=path, options=options)
    distributed.barrier()
    inputs = inputs_of(case)
    return case, list(inputs), list(inputs.values())


def _steps(arguments: argparse.Namespace, folder: Path) -> None:
    import batucada

    launch = batucada.join()
    case, names, tensors = _program(arguments.case, folder)
    alone, replica = (batucada.load(folder / f"{arguments.case}.pef") for _ in range(2))
    replica.replicate()
    record, replicas = replica.manifest.replicas, replica._replicas
    assert record is not None
    assert replicas is not None
    size = sum(bucket.place.bytes for bucket in record.buckets)
    gradients = torch.zeros(size // 4)

    def unfused() -> None:
        alone.run(names, tensors, ["FWD", "BCKWD"])
        alone.run(names, tensors, ["OPT"])

    def reduce() -> None:
        replicas.reduced = False
        replicas.reduce()

    turns: dict[str, tuple[bool, Callable[[], object]]] = {
        "alone_us": (False, lambda: alone.run(names, tensors)),
        "apart_us": (True, lambda: alone.run(names, tensors)),
        "replicas_us": (True, lambda: replica.run(names, tensors)),
        "unfused_us": (True, unfused),
        "reduce_us": (True, reduce),
        "all_reduce_us": (True, lambda: distributed.all_reduce(gradients)),
    }
    found = _in_turns(turns, arguments.rounds)
    if launch.rank:
        return
    times = {name: statistics.median(values) for name, values in found.items()}
    batch, ranks = case.shape[0], launch.world_size
    speedup = _speedup(found, "replicas_us", ranks)
    limit = ranks * times["alone_us"] / (times["apart_us"] + times["reduce_us"])
    line = {
        "case": arguments.case, "ranks": ranks, "bound": arguments.bind, "batch": batch,
        "gradient_bytes": size, "buckets": len(record.buckets),
        "reduced": batucada.Options().with_environment().reduce,
        **{k: round(v, 1) for k, v in times.items()},
        "samples_per_s_alone": round(1e6 * batch / times["alone_us"]),
        "samples_per_s": round(1e6 * ranks * batch / times["replicas_us"]),
        "speedup": round(statistics.median(speedup), 3), "best_speedup": round(max(speedup), 3),
        "ceiling": round(statistics.median(_speedup(found, "apart_us", ranks)), 3),
        "limit": round(limit, 3),
        "reduce_not_hidden_us": round(times["replicas_us"] - times["unfused_us"], 1),
    }  # fmt: skip
    print(json.dumps(line))


def _speedup(found: Mapping[str, list[float]], turn: str, ranks: int) -> list[float]:
    """Of all ranks in `turn` against one alone, round by round."""
    pairs = zip(found["alone_us"], found[turn], strict=True)
    return [ranks * alone / together for alone, together in pairs]


def _in_turns(
    turns: Mapping[str, tuple[bool, Callable[[], object]]], rounds: int
) -> dict[str, list[float]]:
    """Microseconds a step; what not all ranks do, rank 0 does while the others sleep."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    counts = {name: _steps_in(run, STEP_SECONDS) for name, (_, run) in turns.items()}
    for _ in range(rounds):
        for name, (together, run) in turns.items():
            distributed.barrier()
            if not together and distributed.get_rank():
                continue
            start = time.perf_counter()
            for _ in range(counts[name]):
                run()
            found[name].append(1e6 * (time.perf_counter() - start) / counts[name])
    return found


def _steps_in(run: Callable[[], object], seconds: float) -> int:
    """How many steps to take for about so long, the same on every rank."""
    run()
    start = time.perf_counter()
    for _ in range(3):
        run()
    count = torch.tensor(seconds * 3 / (time.perf_counter() - start))
    distributed.broadcast(count, 0)
    return max(3, int(count))


def _network(arguments: argparse.Namespace, folder: Path) -> None:
    """Gloo's all_reduce of some sizes."""
    import batucada

    launch = batucada.join()
    tensors = {size: torch.zeros(size // 4) for size in SIZES}
    turns = {
        str(size): (True, lambda t=tensor: distributed.all_reduce(t))
        for size, tensor in tensors.items()
    }
    for size, times in _in_turns(turns, arguments.rounds).items():
        if launch.rank == 0:
            us = round(min(times), 1)
            print(json.dumps({"ranks": launch.world_size, "bytes": int(size), "us": us}))


GLOBAL_BATCH, CURVE_STEPS = 64, 200


def _curves(arguments: argparse.Namespace, folder: Path) -> None:
    """The mean loss of each step, at the same global batch for any number of ranks."""
    from workload import FEATURES, Network, Training

    import batucada

    launch = batucada.join()
    batch = GLOBAL_BATCH // launch.world_size
    path = folder / "curve.pef"
    torch.manual_seed(launch.rank)  # weights of its own, which rank 0's replace
    model = Training(Network())
    inputs = [
        batucada.NamedTensor("inputs", torch.zeros(batch, FEATURES)),
        batucada.NamedTensor("labels", torch.zeros(batch, dtype=torch.int64)),
    ]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=2e-3)]
    if launch.rank == 0:
        options = batucada.Options(data_parallel=True)
        batucada.compile(model, inputs, optimizers=optimizers, path=path, options=options)
    distributed.barrier()
    program = batucada.load(path)
    program.to_device(model, optimizers)
    program.replicate()
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(10, FEATURES, generator=generator)
    losses = []
    for _ in range(CURVE_STEPS):
        labels = torch.randint(10, (GLOBAL_BATCH,), generator=generator)
        noise = 8 * torch.randn(GLOBAL_BATCH, FEATURES, generator=generator)
        here = slice(launch.rank * batch, (launch.rank + 1) * batch)
        x, y = (centres[labels] + noise)[here].contiguous(), labels[here]
        loss = program.run(["inputs", "labels"], [x, y])[0].tensor().clone()
        distributed.all_reduce(loss)
        losses.append(float(loss) / launch.world_size)
    if launch.rank == 0:
        print(json.dumps({"ranks": launch.world_size, "losses": losses}))


WORKERS = {"steps": _steps, "network": _network, "curves": _curves}


# ---- what is made of it


def _print_curves(lines: list[dict[str, Any]], plot: Path | None) -> None:
    first = lines[0]["losses"]
    for line in lines:
        pairs = zip(first, line["losses"], strict=True)
        difference = max(abs(a - b) for a, b in pairs)
        ends = {"first": line["losses"][0], "last": line["losses"][-1]}
        print(json.dumps({"ranks": line["ranks"], **ends, "largest_difference": difference}))
    if plot is not None:
        counts = [f"{line['ranks']} rank{'s' * (line['ranks'] > 1)}" for line in lines]
        series = {c: list(enumerate(r["losses"])) for c, r in zip(counts, lines, strict=True)}
        title = f"Loss at a global batch of {GLOBAL_BATCH}"
        plot.write_text(line_plot(title, "step", "loss", series, low=0.0))


def _print_model(arguments: argparse.Namespace) -> None:
    step, buckets = arguments.step_us, [int(1e6 * float(b)) for b in arguments.buckets.split(",")]
    series: dict[str, list[tuple[float, float]]] = {}
    for host, network in ((name, _with_slingshot(name)) for name in HOSTS):
        for label, overlaps in (("bucket by bucket", True), ("after the backward pass", False)):
            line = {**network.record(), "reduced": label}
            shares = [
                (ranks, efficiency(network, ranks, step, buckets, overlaps))
                for ranks in RANKS_OF_A_CLUSTER
            ]
            series[f"{host}, {label}"] = list(shares)
            for ranks, share in shares:
                print(json.dumps({**line, "ranks": ranks, "efficiency": round(share, 3)}))
    if arguments.plot is not None:
        title = f"Predicted on Slingshot 11: {step / 1000:g} ms a step, {sum(buckets) / 1e6:g} MB"
        text = line_plot(title, "ranks", "efficiency", series, logarithmic=True, low=0.0)
        arguments.plot.write_text(text)


def _with_slingshot(host: str) -> Network:
    of_host, link = HOSTS[host], 1e-3 / LINK_GB_PER_S
    return Network(
        f"Slingshot 11, {host}", of_host.alpha_us + SWITCHES_US, of_host.beta_us_per_byte + link
    )


if __name__ == "__main__":
    main()
