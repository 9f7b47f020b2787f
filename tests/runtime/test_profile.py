"""`profile` times every stage of a whole step, and its steps are steps like any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.cli import main


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 33), nn.Linear(33, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.second(torch.relu(self.first(x))), y)


class Values(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = torch.linalg.svdvals(torch.tanh(self.first(x)))
        return (self.second(values.expand(4, 5)) ** 2).mean()


class Inverse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x)


def compiled(path: Path, model: nn.Module, train: bool, **inputs: torch.Tensor) -> bt.Program:
    named = tuple(bt.NamedTensor(name, tensor) for name, tensor in inputs.items())
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)] if train else []
    bt.compile(model, named, optimizers=optimizers, path=path)
    program = bt.load(path)
    program.attach(model, named, optimizers=optimizers)
    return program


def test_every_stage_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = torch.randn(6, 20), torch.randint(4, (6,))
    program = compiled(tmp_path / "net.pef", Net(), True, x=x, y=y)
    weight = program.manifest.of_role("parameter")[0].name
    before = program.read(weight)
    times = program.profile([x, y], steps=3)
    assert [t.stage.name for t in times] == list(program.manifest.entries["step"].stages)
    assert all(0 < t.seconds < 1 for t in times)
    product = max(times, key=lambda t: t.stage.flops)
    assert product.flops_per_second == product.stage.flops / product.seconds
    assert not torch.equal(program.read(weight), before)
    assert main(["profile", str(tmp_path / "net.pef"), "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(times)


def test_host_stages_are_timed_beside_native_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(6, 5)
    program = compiled(tmp_path / "values.pef", Values(), True, x=x)
    weight = program.manifest.of_role("parameter")[0].name
    before = program.read(weight)
    times = program.profile([x], steps=3)
    assert [t.stage.name for t in times] == list(program.manifest.entries["step"].stages)
    assert all(0 < t.seconds < 1 for t in times)
    assert not torch.equal(program.read(weight), before)
    on_host = [t.host for t in times if t.host is not None]
    assert [host.target for host in on_host] == ["aten._linalg_svd.default"]
    assert "test_profile.py" in on_host[0].source
    assert main(["profile", str(program.pef.path), "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + len(times)
    assert lines[1].startswith(f"PyTorch runs 1 of {len(times)} stages: ")
    assert [line.split()[-1] for line in lines if "_linalg_svd" in line] == [on_host[0].source]
    assert main(["show", str(program.pef.path)]) == 0
    shown = capsys.readouterr().out
    assert "host stages, run by PyTorch" in shown
    assert f"aten._linalg_svd.default       1  {on_host[0].source}" in shown


def test_a_step_of_host_stages_alone(tmp_path: Path) -> None:
    """There is no native code to measure the processor's counter by."""
    program = compiled(tmp_path / "inverse.pef", Inverse(), False, x=torch.randn(5, 5))
    assert [t.host is not None and t.seconds > 0 for t in program.profile()] == [True]
