"""Where several values are made from one product of elements, all are made from the rounded one:
what is 0 in eager is 0, on either side of a square root's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt

X = torch.randn(5, 1, generator=torch.Generator().manual_seed(5))


class Scaled(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.full((5, 1), 1.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.function(x * self.scale) + self.scale).sum()


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.std(1, correction=0, keepdim=True),
        lambda y: y.expand(5, 3).std(1, keepdim=True),
        lambda y: torch.linalg.vector_norm(y - y.mean(1, keepdim=True), dim=1, keepdim=True),
        lambda y: torch.where(y - y.amax(1, keepdim=True) == 0, y, y * 7),
        lambda y: (y - y.detach()).sign() + y,
        lambda y: nn.functional.pairwise_distance(y * 1.3, y * 1.3, eps=0.0)[:, None],
    ],
    ids=["std", "std of three", "norm", "where", "straight through", "distance"],
)
def test_differences_of_equals_are_zero(
    function: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    model, inputs = Scaled(function), (bt.NamedTensor("x", X),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bt.compile(model, inputs, optimizers=[optimizer], path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, inputs, optimizers=[optimizer])
    loss = program.run(["x"], [X])[0].tensor()
    wanted = model(X)
    wanted.backward()
    torch.testing.assert_close(loss, wanted.detach())
    found = program.gradient(bt.symbol_name(model, "scale"))
    torch.testing.assert_close(found, model.scale.grad)
