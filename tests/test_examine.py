"""`batucada examine` says what is native, what PyTorch runs and what cannot be captured."""

from __future__ import annotations

from pathlib import Path

import pytest

from batucada.cli import main

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.wrong = wrong

    def forward(self, x):
        x = self.linear(x)
        if not self.wrong:
            return torch.linalg.matrix_exp(x).sum()
        if x.sum() > 0:
            x = x * max(x.max().item(), 1.0)
        x = torch.multinomial(x.softmax(1), 2, generator=torch.Generator())
        return self.linear(x.float().repeat(1, 2)).sum()


def good():
    return Net(False), torch.zeros(4, 4)


def bad():
    model = Net(True)
    model.example_inputs = {"x": torch.zeros(4, 4)}
    return model


def nothing():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "examined_net.py").write_text(MODEL)
    return str(tmp_path / "examined_net.py")


def test_what_is_native_and_what_is_not(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examine", f"{file}:good"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file}:good: can be compiled, training\nnative: ")
    assert "host stages, run by PyTorch: " in out
    assert "2 aten.linalg_matrix_exp.default, " in out
    assert f"{file}:14" in out


def test_every_finding_at_once(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examine", f"{file}:bad"]) == 2
    out = capsys.readouterr().out
    assert "cannot be compiled, training\n3 findings:\n" in out
    for line in (15, 16, 17):
        assert f"examined_net.py:{line}" in out


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("none.py:f", "no such file"), ("none", "FILE.py:FUNCTION"),
        ("{}:missing", "no function 'missing'"), ("{}:nothing", "neither"),
    ],
)  # fmt: skip
def test_what_is_no_model(
    target: str, said: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["examine", target.format(file)]) == 2
    assert said in capsys.readouterr().err
