"""Layers of one sample or a few: what is read of the weights is right for every remainder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1024, 80), (2, 520, 333), (3, 333, 200), (4, 75, 1001)]
)
def test_few_rows_and_a_large_weight(rows: int, inputs: int, outputs: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU()), torch.randn(rows, inputs)
    path, inputs_given = tmp_path / "m.pef", (bt.NamedTensor("x", x),)
    done = bt.compile(model, inputs_given, path=path, options=bt.Options(checked=True, cache="off"))
    assert "streamed" in done.texts["mapping"]
    found = []
    for threads in (1, 2):
        program = bt.load(path, bt.Options(threads=threads))
        program.attach(model, inputs_given)
        found.append(program.run(["x"], [x])[0].tensor().clone())
    with torch.no_grad():
        torch.testing.assert_close(found[0], model(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(*found)
