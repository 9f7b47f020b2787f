"""The benchmark takes turns, and its peers do the same work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import bench  # pyright: ignore[reportMissingImports]

    return bench


def test_peers_take_turns(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    runs = {name: lambda steps, name=name: turns.append(name) for name in ("a", "b")}
    monkeypatch.setattr(bench, "_steps_in", lambda run, seconds: 1)
    times = bench.interleaved(runs, rounds=3, seconds=0.0)
    assert turns == ["a", "b"] * 4  # a warm-up each, then the rounds
    assert [len(values) for values in times.values()] == [3, 3]


def test_figures(bench: ModuleType) -> None:
    figures = bench._figures({"eager": [4e-6, 2e-6, 3e-6], "loop": [1e-6, 1e-6, 9e-6]})
    assert figures["us"] == {"eager": 3.0, "loop": 1.0}
    assert figures["ratio"] == {"eager": 1.0, "loop": 3.0}


@pytest.mark.slow
def test_eager_peer_counts_its_steps(bench: ModuleType, tmp_path: Path) -> None:
    import torch
    import torch_peers  # pyright: ignore[reportMissingImports]
    from workload import CASES  # pyright: ignore[reportMissingImports]

    counted: list[int] = []
    original = torch.optim.SGD.step
    run = torch_peers.eager(CASES["train-1"], tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", lambda self: counted.append(original(self) or 1))
        run(3)
    assert counted == [1, 1, 1]


def test_unknown_case_is_named() -> None:
    command = [sys.executable, str(FOLDER / "bench.py"), "--cases", "train-3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no 'train-3'; known: train-1, train-16" in done.stderr
