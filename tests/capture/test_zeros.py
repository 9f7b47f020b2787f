"""What is said of a value's zeros holds of its value, and is no less than could be said."""

from __future__ import annotations

import pytest
import torch

from batucada.capture.folding import value_of
from batucada.capture.zeros import first_zeros
from batucada.ir.graph import Node
from batucada.ops import make
from batucada.ops.create import full
from batucada.ops.view import aten_slice, permute
from batucada.ops.window import pad


def ones(*shape: int) -> Node:
    return full(shape, 1, "f32")


def zeros(*shape: int) -> Node:
    return full(shape, 0, "f32")


LOW = make("cat", ones(2, 3), zeros(2, 4), dim=1)
BLOCK = make("cat", make("cat", zeros(1, 7), LOW, dim=0), zeros(2, 7), dim=0)
VALUES = {
    "no zeros": ones(2, 3),
    "zeros alone": zeros(2, 3),
    "the first of a row": LOW,
    "a block": BLOCK,
    "turned": permute(BLOCK, (1, 0)),
    "a part": aten_slice(BLOCK, 1, 1, 6, 2),
    "a part of zeros": aten_slice(BLOCK, 1, 4, 6),
    "padded": pad(LOW, (0, 2), (1, 3)),
    "cut": pad(LOW, (0, -1), (0, -2)),
    "a sum": make("add", BLOCK, make("neg", pad(ones(4, 1), (0, 0), (1, 6)))),
    "a product": make("mul", BLOCK, pad(ones(5, 2), (0, 0), (0, 5))),
    "times a number": make("mul", BLOCK, full((), 2, "f32")),
    "zeros in front": make("cat", zeros(2, 3), ones(2, 2), dim=1),
    "not zero": pad(LOW, (0, 0), (0, 2), 1.0),
}


@pytest.mark.parametrize("name", VALUES)
def test_as_in_the_value(name: str) -> None:
    value = value_of(VALUES[name], {})
    assert value is not None
    for dim in range(value.dim()):
        rest = [d for d in range(value.dim()) if d != dim]
        taken = torch.nonzero(value.abs().amax(rest)).flatten()
        needed = int(taken[-1]) + 1 if len(taken) else 0
        found = first_zeros(VALUES[name], dim)
        assert found == needed or (found > needed == 0 and dim == 0)  # dimensions are asked alone
