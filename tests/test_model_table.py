"""The page of the model table, and which measured lines it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools import model_table
from tools.model_page import page

MEASURED = {
    "row": "LeNet", "family": "plain", "double": False, "compiler": "this", "failed": {},
    "compile_s": 1.5, "torch_compile_s": 20.0,
    "step_s": {"here": 0.001, "eager": 0.004, "torch_compile": 0.002},
    "stages": 40, "native_stages": 39, "flops": 1000, "native_flops": 990,
    "host": {"aten.histc.default": 1}, "arena_bytes": 110, "live_bytes": 100,
    "loss_error": 2e-7, "state_error": 0.0, "peak_bytes": 7e8, "eager_peak_bytes": 8e8,
}  # fmt: skip


def test_page() -> None:
    text = page([MEASURED], 2)
    assert "1 of 2 rows, 99.0 % of all flops native." in text
    row = next(line for line in text.splitlines() if line.startswith("| LeNet"))
    assert [cell.strip() for cell in row.split("|")[3:-1]] == [
        "39/40", "99.0 %", "1 aten.histc.default", "2e-07", "0e+00", "1.5", "20.0",
        "1.00", "4.00", "2.00", "700", "800", "1.10",
    ]  # fmt: skip


def test_what_failed_is_said() -> None:
    failed = {"row": "U-Net", "family": "x", "double": True, "failed": {"speed": "killed"}}
    text = page([failed], 1)
    assert "| U-Net¹ | x | – | – |" in text
    assert "- U-Net, speed: killed" in text


def test_lines_of_another_compiler_count_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [MEASURED, {**MEASURED, "row": "U-Net", "compiler": "another"}]
    (tmp_path / "models.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(model_table, "LINES", tmp_path / "models.jsonl")
    monkeypatch.setattr(model_table, "compiler_fingerprint", lambda: "this")
    assert list(model_table._known()) == ["LeNet"]
