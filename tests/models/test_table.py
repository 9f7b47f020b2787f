"""Every model of the table trains as in eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

import batucada as bt

from .row import Row
from .table import ROWS
from .training import compiled, distance, train_eagerly, train_here

TOLERANCE = 1e-4


def _marked(row: Row) -> ParameterSet:
    return pytest.param(row, id=row.name, marks=[] if row.quick else [pytest.mark.models])


@pytest.mark.slow
@pytest.mark.parametrize("row", [_marked(row) for row in ROWS])
def test_trains_as_eager(row: Row, tmp_path: Path) -> None:
    program = compiled(row, tmp_path / "model.pef", bt.Options(threads=1))
    found, expected = train_here(row, program), train_eagerly(row)
    apart = distance(row, found, expected)
    assert apart.loss <= TOLERANCE, f"losses {found.losses}, eager {expected.losses}"
    assert apart.state <= TOLERANCE, f"{apart.where} is {apart.state:.1e} from eager's"
    assert apart.moved >= 10 * TOLERANCE, "ten steps change too little to tell anything"


def test_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)
