"""Indices out of range: an error that says which, and never a stray access."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.errors import IndexRangeError
from tests.ops.against_eager import Function

ROWS = 5


def _ctc(table: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    chances = table.log_softmax(1)[:, None].expand(ROWS, 4, 3)
    targets = torch.ones((4, 4), dtype=torch.long)
    return nn.functional.ctc_loss(
        chances, targets, torch.full((4,), ROWS), lengths, zero_infinity=True
    )


MODELS: dict[str, tuple[Callable[..., torch.Tensor], int]] = {
    "embedding": (lambda t, i: nn.functional.embedding(i, t), 0),
    "gather": (lambda t, i: t.gather(0, i[:, None].expand(4, 3)), 0),
    "index_select": (lambda t, i: t.index_select(0, i), 0),
    "x[i]": (lambda t, i: t[i], -ROWS),
    "x[i, j]": (lambda t, i: t[i, i % 2], -ROWS),
    "index_add": (lambda t, i: t.index_add(0, i, t[:4]), 0),
    "index_put": (lambda t, i: t.index_put((i,), t[:4] * 2), -ROWS),
    "ctc": (_ctc, 0),
    "bincount": (lambda t, i: t.sum() + torch.bincount(i, minlength=ROWS), 0),
    "scatter": (lambda t, i: t.scatter(0, i[:, None].expand(4, 3), t[:4]), 0),
}
"""A function of a table [5, 3] and four indices, and the least index it takes."""


def _program(
    function: Callable[..., torch.Tensor], folder: Path, checked: bool
) -> tuple[Any, nn.Module]:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.arange(15.0).reshape(ROWS, 3))
            self.inner = Function(function)

        def forward(self, index: torch.Tensor) -> torch.Tensor:
            return (self.inner(self.table, index) ** 2).sum()

    model = Model()
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    named = (bt.NamedTensor("index", torch.zeros(4, dtype=torch.long)),)
    options = bt.Options(checked=checked, threads=1)
    bt.compile(model, named, optimizers=[made], path=folder / "m.pef", options=options)
    program = bt.load(folder / "m.pef", options)
    program.attach(model, named, optimizers=[made])
    return program, model


@pytest.mark.parametrize("checked", [False, True], ids=["fast", "checked"])
@pytest.mark.parametrize("name", MODELS)
def test_out_of_range(name: str, checked: bool, tmp_path: Path) -> None:
    function, least = MODELS[name]
    program, model = _program(function, tmp_path, checked)
    symbol = bt.symbol_name(model, "table")
    before = program.read(symbol).clone()
    for wrong in (ROWS, least - 1, 2**40, -(2**62)):
        with pytest.raises(IndexRangeError, match=f"{wrong} in the input 'index'.*{least} to 4"):
            program.run(["index"], [torch.tensor([0, 1, wrong, 2])])
        assert torch.equal(program.read(symbol), before)
    program.run(["index"], [torch.tensor([least, 1, ROWS - 1, 2])])


@pytest.mark.parametrize("checked", [False, True], ids=["fast", "checked"])
@pytest.mark.parametrize("name", MODELS)
def test_an_index_that_is_changed_behind_its_check(
    name: str, checked: bool, tmp_path: Path
) -> None:
    """The backward pass alone reads the input again: it stays within the tensors."""
    program, _ = _program(MODELS[name][0], tmp_path, checked)
    for wild in (2**40, -(2**62)):
        index = torch.tensor([0, 1, 4, 2])
        program.run(["index"], [index], ["FWD"])
        index.numpy().fill(wild)  # PyTorch sees nothing of it
        program.run(["index"], [index], ["BCKWD"])
