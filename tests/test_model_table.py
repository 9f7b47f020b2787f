"""The page of the model table, and which measured figures it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools import model_table
from tools.model_page import page

from tests.models.row import Row
from tests.models.table import ROWS

BY = {"commit": "abc", "machine": "a machine"}
TRAINING: dict[str, Any] = {
    **BY, "stages": 40, "native_stages": 39, "flops": 1000, "native_flops": 990,
    "host": {"aten.histc.default": 1}, "arena_bytes": 110, "live_bytes": 100,
    "loss_error": 2e-7, "state_error": 0.0,
}  # fmt: skip
LENET: dict[str, Any] = {
    "training": TRAINING,
    "memory": {**BY, "peak_bytes": 7e8},
    "eager-memory": {**BY, "peak_bytes": 8e8},
    "checked": {**BY, "steps": 10},
    "speed": {
        **BY, "compile_s": 1.5, "torch_compile_s": 20.0,
        "step_s": {"here": 0.001, "eager": 0.004, "torch_compile": 0.0005},
    },
}  # fmt: skip


def _row(name: str, double: bool = False) -> Row:
    found = next(row for row in ROWS if row.name == name)
    assert found.double == double
    return found


def test_page() -> None:
    text = page([(_row("LeNet"), LENET), (_row("U-Net"), {})])
    assert "**1 of 2 rows** are trained, 0 of them without a host stage" in text
    assert "99.0 % of their floating-point operations are native" in text
    assert "4.0 times as fast in the median of 1 rows; slower: none." in text
    assert "slower: LeNet (0.50)." in text
    assert "above eager's: none." in text
    row = next(line for line in text.splitlines() if line.startswith("| LeNet"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "39/40", "99.0 %", "1 aten.histc.default", "2e-07", "0e+00", "1.00", "4.00", "0.50",
        "1.5", "20.0", "700", "800", "1.10",
    ]  # fmt: skip


def test_what_failed_is_said() -> None:
    text = page([(_row("VGG-11", double=True), {"speed": {**BY, "failed": "killed"}})])
    assert "| VGG-11¹ | – | – |" in text
    assert "- VGG-11, speed: killed" in text


def test_figures_in_float32_stand_beside_those_in_float64() -> None:
    apart = {"loss_error": 2e-3, "state_error": 3e-3}
    training = TRAINING | {"here_from_double": apart, "eager_from_double": apart}
    text = page([(_row("VGG-11", double=True), {"training": training})])
    assert "| VGG-11 | 2.0e-03 | 2.0e-03 | 3.0e-03 | 3.0e-03 |" in text


def test_a_part_is_kept_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_table, "LINES", tmp_path / "models.jsonl")
    for name, part in (("U-Net", "speed"), ("LeNet", "training"), ("LeNet", "speed")):
        model_table._keep(_row(name), {part: {"commit": name}})
    assert list(model_table._lines()) == ["LeNet", "U-Net"]  # in the order of the table
    assert set(model_table._known(_row("LeNet"))) == {"training", "speed"}


def test_the_page_is_that_of_the_figures() -> None:
    lines = model_table._lines()
    made = page([(row, lines.get(row.name, {})) for row in ROWS])
    assert model_table.PAGE.read_text() == made
