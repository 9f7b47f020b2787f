"""Methods that are replaced while a model is captured, and only then."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

import batucada as bt

BEFORE = (torch.Tensor.tolist, torch.Tensor.__getitem__, nn.BatchNorm2d.forward)


def test_batch_norm_without_momentum_takes_the_mean_of_all_batches(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(3, momentum=None)
    model, eager = nn.Sequential(norm), copy.deepcopy(nn.Sequential(norm))
    batches = torch.randn(4, 5, 3, 2, 6, generator=torch.Generator().manual_seed(4)) * 3 + 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    named = (bt.NamedTensor("x", batches[0]),)
    bt.compile(model, named, optimizers=[optimizer], path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, named, optimizers=[optimizer])
    for batch in batches:
        expected = eager(batch)
        found = program.run(["x"], [batch])[0].tensor()
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
        for path, buffer in eager.named_buffers():
            torch.testing.assert_close(program.read(bt.symbol_name(model, path)), buffer)


def test_nothing_stays_replaced() -> None:
    assert (torch.Tensor.tolist, torch.Tensor.__getitem__, nn.BatchNorm2d.forward) == BEFORE
    assert torch.arange(3)[[0, 2]].tolist() == [0, 2]
