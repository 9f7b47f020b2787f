"""Layers of one sample or a few: what is read of the weights is right for every remainder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


CASES = {
    "one row": (linear(1024, 84), (1, 1024)),
    "two rows": (linear(520, 333), (2, 520)),
    "odd depth": (linear(333, 200), (3, 333)),
    "odd width": (linear(75, 1001), (4, 75)),
    "four pixels": (nn.Conv2d(90, 88, 3, padding=1), (1, 90, 2, 2)),
    "strided": (nn.Conv2d(128, 70, 3, stride=2, padding=1), (1, 128, 4, 4)),
    "one tap": (nn.Conv2d(300, 260, 1), (1, 300, 1, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_few_rows_and_a_large_weight(name: str, tmp_path: Path) -> None:
    model, shape = CASES[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
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


def test_lines_of_a_large_image_are_asked_for_ahead(tmp_path: Path) -> None:
    """Each of the row of pixels behind those a tile reads, once."""
    x = (bt.NamedTensor("x", torch.randn(16, 16, 20, 20)),)
    model = nn.Conv2d(16, 16, 3, padding=1)
    options = bt.Options(checked=True, cache="off", stop_after="kernels")
    done = bt.compile(model, x, path=tmp_path / "m.pef", options=options)
    kernel = next(k for k in done.texts["kernels"].split("def ") if "prefetch" in k)
    asked = [line.strip() for line in kernel.splitlines() if "prefetch" in line]
    assert len(asked) == len(set(asked)) == 5 + 2  # pixels of a tile of five and its neighbours
