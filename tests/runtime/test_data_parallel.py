"""Replicas of a program: N ranks of batch B do what one process of batch N * B does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.errors import OptionError
from batucada.runtime import gloo
from tests.runtime.ranks import run_ranks

BATCH, STEPS = 6, 4
NAMES = ["x", "y"]


class Net(nn.Module):
    """Its first and third layers share a weight; a batch norm keeps statistics."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.first(x))
        hidden = torch.tanh(self.second(self.norm(hidden)))
        hidden = torch.nn.functional.linear(hidden, self.first.weight)
        out = self.head(hidden) * self.scale
        return self.loss(out, y), out


class Mixed(nn.Module):
    """A layer of each dtype, so a bucket of each."""

    def __init__(self) -> None:
        super().__init__()
        self.f16 = nn.Linear(8, 8, dtype=torch.float16)
        self.bf16 = nn.Linear(8, 8, dtype=torch.bfloat16)
        self.f64 = nn.Linear(8, 8, dtype=torch.float64)
        self.head = nn.Linear(8, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in (self.f16, self.bf16, self.f64):
            x = torch.tanh(layer(x.to(layer.weight.dtype)).float())
        out = self.head(x)
        return self.loss(out, y), out


class Hosted(nn.Module):
    """PyTorch solves the equations, in the forward pass and in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left = self.first.weight + 4 * torch.eye(8)
        out = self.head(torch.tanh(x @ torch.linalg.solve(left, self.second.weight)))
        return self.loss(out, y), out


class Tokens(nn.Module):
    """A table that is looked up twice and multiplied by, and one that has padding."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(11, 8), nn.Embedding(9, 8, padding_idx=2)
        self.head = nn.Linear(11, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (4 * x).long().abs().clamp(max=8)
        hidden = self.first(tokens).mean(1) + self.first(tokens[:, 0]) + self.second(tokens).sum(1)
        out = self.head(nn.functional.linear(torch.tanh(hidden), self.first.weight))
        return self.loss(out, y), out


NETS = {
    "plain": Net,
    "norm": partial(Net, norm=True),
    "mixed": Mixed,
    "hosted": Hosted,
    "tokens": Tokens,
}


def sgd(net: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(net.parameters(), lr=0.3)]


def momentum(net: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)]


def adamw(net: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(net.parameters(), lr=0.01)]


def clipped(net: Any) -> list[torch.optim.Optimizer]:
    optimizers = momentum(net)
    optimizers[0].max_grad_norm = 0.05  # type: ignore[attr-defined]
    return optimizers


def several(net: Any) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD([*net.first.parameters(), net.scale], lr=0.1),
        torch.optim.Adam([*net.second.parameters(), *net.head.parameters()], lr=0.01),
    ]


def factored(net: Any) -> list[torch.optim.Optimizer]:
    """What reads a whole gradient for one element, and what keeps an average."""
    return [
        torch.optim.Adafactor([*net.first.parameters(), *net.second.parameters()], lr=0.05),
        torch.optim.ASGD([*net.head.parameters(), net.scale], lr=0.1, t0=1),
    ]


def muon(net: Any) -> list[torch.optim.Optimizer]:
    biases = [net.first.bias, net.second.bias, *net.head.parameters(), net.scale]
    matrices = [net.first.weight, net.second.weight]
    return [torch.optim.Muon(matrices, lr=0.01), torch.optim.SGD(biases, lr=0.1)]


Make = Callable[[Any], list[torch.optim.Optimizer]]


def net_of(seed: int, kind: str = "plain") -> Any:
    torch.manual_seed(seed)
    return NETS[kind]()


def batches(ranks: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    shape = ranks * BATCH
    return [(torch.randn(shape, 8), torch.randint(0, 3, (shape,))) for _ in range(STEPS)]


def compiled(
    folder: Path, make: Make, batch: int, data_parallel: bool, kind: str = "plain"
) -> Path:
    net = net_of(0, kind)
    path = folder / f"{batch}-{data_parallel}.pef"
    inputs = [
        bt.NamedTensor("x", torch.zeros(batch, 8)),
        bt.NamedTensor("y", torch.zeros(batch).long()),
    ]
    options = bt.Options(data_parallel=data_parallel, bucket_mb=0.0003)
    bt.compile(net, inputs, optimizers=make(net), path=path, options=options)
    return path


def loaded(path: Path, make: Make, seed: int, kind: str = "plain") -> Any:
    """The program with the weights of a net.  To trace the net would take longer than to run it."""
    net = net_of(seed, kind)
    program = bt.load(path)
    program.to_device(net, make(net))
    return program


def values(program: Any) -> dict[str, torch.Tensor]:
    """And the gradient of one."""
    kinds = ("parameter", "buffer", "state")
    found = {s.name: program.read(s.name) for s in program.manifest.of_role(*kinds)}
    weight = next(name for name in found if name.endswith("head__weight"))
    return found | {"gradient": program.gradient(weight)}


def trained(
    rank: int, ranks: int, path: Path, make: Make, sections: list[list[str]] | None, kind: str
) -> dict[str, torch.Tensor]:
    """Ranks begin with weights of their own, which are to be rank 0's."""
    bt.join()
    program = loaded(path, make, seed=rank, kind=kind)
    program.replicate()
    for x, y in batches(ranks):
        here = slice(rank * BATCH, (rank + 1) * BATCH)
        for part in sections or [None]:
            program.run(NAMES, [x[here], y[here]], part)
    return values(program)


def trained_by_all_reduce(*args: Any) -> dict[str, torch.Tensor]:
    """As of buckets that are too large to be exchanged."""
    gloo._EXCHANGED_BYTES = 0
    return trained(*args)


def alone(path: Path, make: Make, ranks: int, kind: str = "plain") -> dict[str, torch.Tensor]:
    program = loaded(path, make, seed=0, kind=kind)
    for x, y in batches(ranks):
        program.run(NAMES, [x, y])
    return values(program)


def assert_identical(found: list[dict[str, torch.Tensor]]) -> None:
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(other[name], value), name


# Of Muon, which iterates in bf16, a hundredth of the updates; of half precision, its rounding.
CASES = {
    "clipped": ("plain", clipped, 2e-6),
    "several": ("plain", several, 2e-6),
    "adamw": ("plain", adamw, 2e-6),
    "factored": ("plain", factored, 2e-6),
    "muon": ("plain", muon, 4e-4),
    "embeddings": ("tokens", clipped, 2e-6),
    "mixed dtypes": ("mixed", momentum, 2e-3),
    "host stages": ("hosted", momentum, 2e-6),
}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_of_twice_the_batch(case: str, tmp_path: Path) -> None:
    kind, make, atol = CASES[case]
    path = compiled(tmp_path, make, BATCH, data_parallel=True, kind=kind)
    found = run_ranks(trained, 2, 2, path, make, None, kind)
    found += run_ranks(trained_by_all_reduce, 2, 2, path, make, None, kind)
    found += run_ranks(trained, 2, 2, path, make, None, kind, BATUCADA_REDUCE="shared")
    assert_identical(found)
    expected = alone(compiled(tmp_path, make, 2 * BATCH, False, kind), make, 2, kind)
    for name, value in expected.items():
        rtol = 1e-4 if value.dtype in (torch.float32, torch.float64) else 1e-2
        torch.testing.assert_close(found[0][name], value, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("make", "sections"),
    [
        (adamw, [["fwd", "bckwd", "reduce"], ["opt"]]),
        (clipped, [["fwd"], ["bckwd"], ["reduce"], ["reduce"], ["gradnorm"], ["opt"]]),
        (adamw, [["fwd", "bckwd"], ["opt"]]),
    ],
    ids=["reduce with bckwd", "one by one", "before opt in any case"],
)
def test_sections_one_by_one_are_a_whole_step(
    make: Make, sections: list[list[str]], tmp_path: Path
) -> None:
    path = compiled(tmp_path, make, BATCH, data_parallel=True)
    found = run_ranks(trained, 2, 2, path, make, sections, "plain")
    found += run_ranks(trained, 2, 2, path, make, sections, "plain", BATUCADA_REDUCE="shared")
    assert_identical([*found, run_ranks(trained, 2, 2, path, make, None, "plain")[0]])


def test_three_and_four_ranks_with_buffers(tmp_path: Path) -> None:
    """Rank 0's statistics of a batch norm are everyone's, as in DistributedDataParallel."""
    path = compiled(tmp_path, adamw, BATCH, data_parallel=True, kind="norm")
    for ranks in (3, 4):
        found = run_ranks(trained, ranks, ranks, path, adamw, None, "norm")
        assert_identical(found)
        assert found[0]["net__norm__num_batches_tracked"] == STEPS
        other = run_ranks(trained_by_all_reduce, ranks, ranks, path, adamw, None, "norm")
        if ranks == 4:
            other += run_ranks(trained, 4, 4, path, adamw, None, "norm", BATUCADA_REDUCE="shared")
        assert_identical(other[:ranks])
        assert_identical(other[ranks:])
        for values in (other[0], other[-1]):  # added up in other orders
            for name, value in values.items():
                torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=2e-6)


def gradients(rank: int, path: Path) -> list[torch.Tensor]:
    bt.join()
    program = loaded(path, sgd, seed=0)
    program.replicate()
    x, y = batches(2)[0]
    here = slice(rank * BATCH, (rank + 1) * BATCH)
    program.set_output_gradient(0, torch.tensor(2.0))
    program.run(NAMES, [x[here], y[here]], ["fwd", "bckwd"])
    own = program.gradient("net__head__weight")
    program.run(NAMES, [x[here], y[here]], ["reduce"])
    mean, loss = program.gradient("net__head__weight"), program.outputs[0].name
    return [own, mean, program.gradient(loss)]


def test_a_gradient_is_the_rank_s_own_until_it_is_reduced(tmp_path: Path) -> None:
    path = compiled(tmp_path, sgd, BATCH, data_parallel=True)
    found = run_ranks(gradients, 2, path)
    for rank, (own, mean, start) in enumerate(found):
        x, y = batches(2)[0]
        here = slice(rank * BATCH, (rank + 1) * BATCH)
        net = net_of(0)
        (2 * net(x[here], y[here])[0]).backward()
        torch.testing.assert_close(own, net.head.weight.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mean, (found[0][0] + found[1][0]) / 2)
        assert start == 2


def test_one_process_loses_nothing(tmp_path: Path) -> None:
    """The program for replicas has the same whole step as the one for a single process."""
    alike = [compiled(tmp_path, adamw, BATCH, data_parallel=dp) for dp in (True, False)]
    found = []
    for path in alike:
        program = loaded(path, adamw, seed=0)
        program.replicate() if path is alike[0] else None
        for x, y in batches(1):
            program.run(NAMES, [x, y])
        found.append(values(program))
    assert_identical(found)
    kernels = [bt.load(path).manifest.entries["step"].stages for path in alike]
    assert kernels[0] == kernels[1]


def replicated(rank: int, paths: list[Path]) -> str:
    bt.join()
    bt.load(paths[rank]).replicate()
    return "ran"


def test_ranks_with_other_programs_are_told(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, make, BATCH, data_parallel=True) for make in (sgd,)]
    paths.append(compiled(tmp_path / "other", adamw, BATCH, data_parallel=True))
    for rank, message in enumerate(run_ranks(replicated, 2, paths)):
        hashes = "rank 0 has the program [0-9a-f]{16}, rank 1 [0-9a-f]{16}"
        assert re.match(f"PefMismatchError: rank {rank}: .*{hashes}", message), message


def policies(rank: int, path: Path) -> dict[str, int]:
    replicated(rank, [path] * 2)
    threads = Path("/proc/self/task").iterdir()
    names = {int(thread.name): (thread / "comm").read_text().strip() for thread in threads}
    return {name: os.sched_getscheduler(thread) for thread, name in names.items()}


@pytest.mark.skipif(torch.__version__.startswith("2.9."), reason="the thread has no name yet")
def test_the_polling_thread_of_gloo_preempts_none_of_ours(tmp_path: Path) -> None:
    path = compiled(tmp_path, sgd, BATCH, data_parallel=True)
    for found in run_ranks(policies, 2, path):
        assert found.pop("gloo_tcp_loop") == os.SCHED_BATCH
        assert set(found.values()) == {os.SCHED_OTHER}


def test_a_program_that_cannot_reduce_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path, sgd, BATCH, data_parallel=False)
    with pytest.raises(OptionError, match="compile it with --data-parallel -ws 2"):
        bt.load(path).replicate()
