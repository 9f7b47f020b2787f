"""Methods that are replaced while a model is captured, and only then."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

import batucada as bt

BEFORE = (torch.Tensor.tolist, torch.Tensor.__getitem__, nn.BatchNorm2d.forward, torch.tensor)


class Numbers(nn.Module):
    """Tensors made in the forward pass, on the device of another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(x)
        least = torch.tensor(torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=x.device)
        places = torch.as_tensor([1, 0, 3, 2], device=x.device)
        scale = hidden.new_tensor([1, 2, 3, 4])
        return torch.where(x > 0, hidden, least / 2.0**120)[:, places] * scale


def test_numbers_beside_a_tensor_are_constants(tmp_path: Path) -> None:
    model, x = Numbers(), torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    bt.compile(model, (x,), path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, (x,))
    torch.testing.assert_close(program.run(["x"], [x])[0].tensor(), model(x).detach())


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
    replaced = (torch.Tensor.tolist, torch.Tensor.__getitem__, nn.BatchNorm2d.forward, torch.tensor)
    assert replaced == BEFORE
    assert "new_tensor" not in vars(torch.Tensor)
    assert torch.arange(3)[[0, 2]].tolist() == [0, 2]
