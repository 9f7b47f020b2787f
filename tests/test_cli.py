"""`batucada show` prints what is in a PEF; mistakes are one line on stderr and status 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batucada.cli import main
from batucada.pef import write_pef

from .pef.samples import MEMBERS, sample_manifest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pef(tmp_path: Path) -> str:
    write_pef(tmp_path / "twice.pef", sample_manifest(), MEMBERS)
    return str(tmp_path / "twice.pef")


def test_summary(pef: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", pef]) == 0
    out = capsys.readouterr().out
    assert "twice, training" in out
    assert "SGD, 1 parameters" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["parameter", "net__w", "f32[2,3]", "1,0", "arena+64", "w"] in lines
    assert ["s0", "map", "6", "24", "24", "one", "add", "model.py:3"] in lines
    assert ["object/x86-64-v3.o", "256"] in lines


@pytest.mark.parametrize(
    ("level", "member"),
    [
        ("capture", "graph/00-capture.py"),
        ("kernels", "kernels.py"),
        ("module", "module.ll"),
        ("module.ll", "module.ll"),
        ("report", "report.json"),
    ],
)
def test_level(pef: str, level: str, member: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", pef, "--ir", level]) == 0
    assert capsys.readouterr().out.encode() == MEMBERS[member]


def test_assembly(pef: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", pef, "--ir", "asm"]) == 0
    out = capsys.readouterr().out
    assert "twice:" in out
    assert "retq" in out.split()


def test_json(pef: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", pef, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["name"] == "twice"
    assert sorted(manifest["members"]) == sorted(MEMBERS)


def test_unknown_level_lists_the_levels(pef: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", pef, "--ir", "nothing"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "there is no level 'nothing'; it has: capture, kernels, module, report, asm" in error


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none.pef")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("batucada: ")
    assert "no such PEF" in captured.err


def test_closed_pipe(pef: str) -> None:
    command = f"{sys.executable} -m batucada show {pef} | true"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
