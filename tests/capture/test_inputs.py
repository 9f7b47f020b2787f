"""The forms in which a model's inputs are given, and the names that their tensors get."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.capture import NamedTensor, capture, name_inputs
from batucada.errors import InputError

X, Y = torch.zeros(2, 3), torch.ones(2, 3)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, power: int = 1,
        states: Any = (), *rest: torch.Tensor, last: torch.Tensor | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        out = (x * self.scale) ** power
        out = out if mask is None else out * mask
        for tensor in (*states, *rest, *([] if last is None else [last])):
            out = out + tensor
        return {"mean": out.mean(), "nothing": None, "parts": [out, out + 1]}


def names_of(args: Any, kwargs: Any = None) -> list[str]:
    """The names of the captured program's inputs, in order."""
    graph = capture(Model(), args, kwargs, training=False).graph
    return [node.name for node in graph.by_role("input")]


@pytest.mark.parametrize(
    ("args", "kwargs", "names"),
    [
        (X, None, ["x"]),
        (NamedTensor("image", X), None, ["image"]),
        ((X, Y), None, ["x", "mask"]),
        ([NamedTensor("image", X), Y], None, ["image", "mask"]),
        ((X, None, 2), None, ["x"]),
        ((X, None, 3, (X, Y)), None, ["x", "states_0", "states_1"]),
        ((X, None, 1, [X], Y, Y), None, ["x", "states_0", "input_4", "input_5"]),
        ({"x": X, "mask": None, "power": 2}, None, ["x"]),
        (UserDict({"mask": Y, "x": X}), None, ["mask", "x"]),
        ({"x": X, "states": [Y]}, {"last": Y}, ["x", "states_0", "last"]),
        ((), {"last": NamedTensor("end", Y), "x": X}, ["end", "x"]),
    ],
)
def test_names(args: Any, kwargs: Any, names: list[str]) -> None:
    assert names_of(args, kwargs) == names


@pytest.mark.parametrize("args", [3, "x", None, {1}])
def test_what_is_no_input(args: Any) -> None:
    with pytest.raises(InputError, match=type(args).__name__):
        name_inputs(Model(), args)


def test_outputs_are_flattened_in_order() -> None:
    outputs = capture(Model(), X, training=False).outputs
    assert [spec.shape for spec in outputs] == [(), (2, 3), (2, 3)]


@pytest.mark.slow
def test_a_run_matches_by_name(tmp_path: Path) -> None:
    model, path = Model(), tmp_path / "model.pef"
    given = {"mask": torch.rand(2, 3), "power": 2, "x": torch.randn(2, 3)}
    bt.compile(model, given, path=path)
    program = bt.load(path)
    program.attach(model, given)
    results = program.run(["x", "mask"], [given["x"], given["mask"]])
    expected = model(**given)
    for found, wanted in zip(results, [expected["mean"], *expected["parts"]], strict=True):
        torch.testing.assert_close(found.tensor(), wanted.detach())
