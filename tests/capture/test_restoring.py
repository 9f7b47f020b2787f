"""A model whose forward keeps something for its next call is compiled, traced and used in eager."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import batucada as bt


class Keeper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scales: dict[int, torch.Tensor] = {}
        self.seen: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) not in self.scales:
            self.scales[len(x)] = self.layer.bias.exp()
        if not hasattr(self, "places"):
            self.register_buffer("places", torch.arange(4, device=x.device), persistent=False)
        self.last = out = self.layer(x) * self.scales[len(x)] + self.places
        self.seen.append(out)
        return out


def test_capture_leaves_no_trace(tmp_path: Path) -> None:
    model, x = Keeper().eval(), torch.randn(3, 4, generator=torch.Generator().manual_seed(6))
    bt.compile(model, (x,), path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, (x,))
    assert (model.scales, model.seen, model.last) == ({}, [], None)
    assert not hasattr(model, "places")
    torch.testing.assert_close(program.run(["x"], [x])[0].tensor(), model(x).detach())
