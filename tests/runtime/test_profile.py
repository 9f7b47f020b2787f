"""`profile` times every stage of a whole step, and its steps are steps like any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.cli import main
from batucada.errors import PefError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 33), nn.Linear(33, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.second(torch.relu(self.first(x))), y)


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


def test_host_stages_are_not_timed(tmp_path: Path) -> None:
    program = compiled(tmp_path / "inverse.pef", Inverse(), False, x=torch.randn(5, 5))
    with pytest.raises(PefError, match="PyTorch runs 1 stages"):
        program.profile()
