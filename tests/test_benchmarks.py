"""The benchmark takes turns, and its peers do the same work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

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


@pytest.mark.slow
def test_unknown_case_is_named(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--cases", "train-3"])
    with pytest.raises(SystemExit, match="there is no 'train-3'; known: train-1, train-16"):
        bench.main()


@pytest.mark.slow
def test_peers_are_processes(bench: ModuleType, tmp_path: Path) -> None:
    """One that is late or has no form of the case is reported; what is measured is not again."""
    out = tmp_path / "lines.jsonl"
    command = [
        *(sys.executable, str(FOLDER / "bench.py"), "--cases", "infer-1", "--rounds", "1"),
        *("--seconds", "0.01", "--peers", "eager,eager-channels-last", "--out", str(out)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    first = bench.measured(out)["infer-1", 1]
    assert list(first["us"]) == ["eager"]
    assert first["skipped"] == {"eager-channels-last": "no images"}
    late = subprocess.run(
        [*command, "--limit", "0.01", "--threads", "1,2"], check=True, capture_output=True
    )
    assert b"not ready after 0.01 s" in late.stdout
    assert list(bench.measured(out)) == [("infer-1", 1), ("infer-1", 2)]


def test_table_of_lines(bench: ModuleType) -> None:
    import table  # pyright: ignore[reportMissingImports]

    line = {
        "case": "lenet-infer-32", "threads": 2, "of_peak": 0.5, "skipped": {"jax": "no"},
        "us": {"loop": 500.0, "session": 510.0, "eager": 2000.0, "aoti": 1500.0},
    }  # fmt: skip
    page = "before\n<!-- table inference-2 -->\nold\n<!-- end -->\n<!-- table training-2 -->\nx"
    filled = table.filled(page, [line, {"case": "lenet", "threads": 2}])
    assert "| lenet, batch 32 | 0.5 | 0.50 | 2 | 1.5 aoti | 3.00 |\n<!-- end -->" in filled
    assert "old" not in filled
    assert filled.endswith("<!-- table training-2 -->\nx")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import scaling  # pyright: ignore[reportMissingImports]

    return scaling


def test_latency_and_bandwidth_are_found_again(scaling: ModuleType) -> None:
    network = scaling.Network("made up", alpha_us=12.0, beta_us_per_byte=1 / 3000)
    lines = [
        {"ranks": ranks, "bytes": size, "us": network.all_reduce_us(ranks, size)}
        for ranks in (2, 4, 8)
        for size in scaling.SIZES
    ]
    found = scaling.fitted(lines)
    assert found.alpha_us == pytest.approx(12.0)
    assert found.beta_us_per_byte == pytest.approx(1 / 3000)


def test_overlap_hides_all_but_the_last_bucket(scaling: ModuleType) -> None:
    network = scaling.Network("made up", alpha_us=0.0, beta_us_per_byte=0.001)
    hidden, plain = (scaling.efficiency(network, 2, 900.0, [50_000] * 4, o) for o in (True, False))
    assert hidden == pytest.approx(900 / 950)
    assert plain == pytest.approx(900 / 1100)


def test_a_plot_is_svg(scaling: ModuleType) -> None:
    series = {"a": [(8, 1.0), (64, 0.5)], "b": [(8, 0.9), (64, 0.2)]}
    root = ElementTree.fromstring(scaling.line_plot("t", "x", "y", series, logarithmic=True))
    lines = [p.attrib["points"].split() for p in root.iter() if p.tag.endswith("polyline")]
    assert [len(points) for points in lines] == [2, 2]
