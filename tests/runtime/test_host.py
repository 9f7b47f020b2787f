"""Operators that PyTorch runs on the program's memory, beside eager."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import fractional_max_pool3d

import batucada as bt
from batucada.errors import HostStageError

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))


class Model(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.function(torch.tanh(self.first(x)))
        return (self.second(hidden) ** 2).mean(), hidden


@torch.library.custom_op("batucada_tests::halve", mutates_args=("where",))
def halve(x: torch.Tensor, where: list[torch.Tensor]) -> torch.Tensor:
    for tensor in where:
        tensor.mul_(0.5)
    return x + 1


@halve.register_fake
def _(x: torch.Tensor, where: list[torch.Tensor]) -> torch.Tensor:
    return torch.empty_like(x)


def changed_by_pytorch(h: torch.Tensor) -> torch.Tensor:
    first, second = h.detach() * 1, h.detach().exp()
    made = halve(h.detach(), [first, second[1:3]])
    return h * first * second * made


def eye(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(5, device=x.device)


CASES = {
    "one result": lambda h: torch.linalg.solve(h[:5] + 4 * eye(h), h.T).T.contiguous(),
    "svd": lambda h: torch.linalg.svdvals(h).expand(4, 5),
    "several results": lambda h: torch.linalg.qr(h)[0] @ torch.linalg.qr(h)[1] + h,
    "least squares": lambda h: torch.linalg.lstsq(h + 4 * torch.eye(6, 5), h.flip(0)).solution,
    "no shape without data": lambda h: (
        h
        * fractional_max_pool3d(
            torch.stack([h, h.sin()]).reshape(1, 2, 3, 2, 5),
            1,
            (2, 1, 3),
            _random_samples=torch.full((1, 2, 3), 0.3),
        ).sum()
    ),
    "a tensor that grows": lambda h: (
        nn.CrossMapLRN2d(3)(h.reshape(1, 6, 5, 1)).reshape(6, 5)
        + torch.linalg.matrix_exp(h[:5]).sum()
    ),
    "changes of arguments": changed_by_pytorch,
    "of a view": lambda h: torch.linalg.inv(h.T[:, :5].T + 4 * eye(h)),
}


def trained(model: nn.Module, path: Path, threads: int) -> tuple[bt.Program, torch.optim.Optimizer]:
    inputs = (bt.NamedTensor("x", X),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = bt.Options(oracle=True, checked=True, threads=threads)
    bt.compile(model, inputs, optimizers=[optimizer], path=path, options=options)
    program = bt.load(path, options)
    program.attach(model, inputs, optimizers=[optimizer])
    return program, optimizer


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("function", CASES.values(), ids=CASES.keys())
def test_training_as_eager(function: Callable, threads: int, tmp_path: Path) -> None:
    model = Model(function)
    program, optimizer = trained(model, tmp_path / "m.pef", threads)
    for _ in range(3):
        loss, hidden = (result.tensor() for result in program.run(["x"], [X]))
        expected, eager = model(X)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(hidden, eager.detach(), rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        expected.backward()
        grad = program.gradient(bt.symbol_name(model, "first.weight"))
        assert model.first.weight.grad is not None
        torch.testing.assert_close(grad, model.first.weight.grad, rtol=1e-3, atol=1e-5)
        optimizer.step()
    assert program.manifest.host


def test_sections_one_by_one_make_the_same_step(tmp_path: Path) -> None:
    models = [Model(CASES["one result"]) for _ in range(2)]
    whole, _ = trained(models[0], tmp_path / "whole.pef", 1)
    parts, _ = trained(models[1], tmp_path / "parts.pef", 1)
    for _ in range(2):
        whole.run(["x"], [X])
        for sections in (["fwd"], ["bckwd"], ["opt"]):
            parts.run(["x"], [X], sections)
    whole.to_host(models[0])
    parts.to_host(models[1])
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    stacked = whole.run_steps(["x"], [X.expand(2, 6, 5)])
    assert stacked[0].shape == (2,)


def inference(model: nn.Module, path: Path) -> bt.Program:
    inputs = (bt.NamedTensor("x", X),)
    bt.compile(model, inputs, path=path)
    program = bt.load(path)
    program.attach(model, inputs)
    return program


def _fails(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("no such luck")


def test_operators_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "m.pef"
    with torch.library._scoped_library("batucada_tests", "DEF") as library:
        for name, kernel in (("twice", lambda x: 2 * x), ("fails", _fails)):
            library.define(f"{name}(Tensor x) -> Tensor")
            library.impl(name, kernel, "CPU")
            library.impl(name, torch.empty_like, "Meta")
        model = Model(lambda h: torch.ops.batucada_tests.twice(h.detach()))
        loss = inference(model, path).run(["x"], [X])[0].tensor()
        torch.testing.assert_close(loss, model(X)[0].detach())
        failing = inference(Model(torch.ops.batucada_tests.fails), tmp_path / "fails.pef")
        with pytest.raises(HostStageError, match=r"test_host\.py:\d+: .*fails.*: no such luck"):
            failing.run(["x"], [X])
    command = f"import batucada\ntry: batucada.load({str(path)!r})\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "batucada_tests.twice.default" in done.stdout
    assert "import what registers it" in done.stdout
