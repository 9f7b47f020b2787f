"""Compilations that cannot write, or are stopped: the old PEF whole or none, nothing in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import batucada as bt
from tests.robustness.commands import LOGREG, pefs, run, start


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KB, less than any PEF."""
    yield from mounted(tmp_path / "full", "size=16k")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "read_only", "ro,size=1m")


def compiled(folder: Path, output: Path | str = "out", **environ: str):
    return run(
        LOGREG, "compile", "--pef-name=app", "--output-folder", output, folder=folder,
        environ=environ,
    )  # fmt: skip


def test_a_disk_that_is_full(full: Path, tmp_path: Path) -> None:
    error = compiled(tmp_path, full).refused()
    assert "No space left on device" in error
    assert str(full) in error
    assert pefs(full) == []


def test_a_disk_that_fills_up_keeps_the_old_pef(full: Path, tmp_path: Path) -> None:
    (full / "app").mkdir()
    (full / "app" / "app.pef").write_bytes(b"the old one")
    compiled(tmp_path, full).refused()
    assert pefs(full) == ["app.pef"]
    assert (full / "app" / "app.pef").read_bytes() == b"the old one"


def test_a_folder_that_cannot_be_written(read_only: Path, tmp_path: Path) -> None:
    error = compiled(tmp_path, read_only).refused()
    assert "Read-only file system" in error
    assert str(read_only) in error


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    error = compiled(tmp_path).refused()
    assert "out/app" in error
    assert (tmp_path / "out").read_text() == "a file"


def test_a_pef_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out/app/app.pef").mkdir(parents=True)
    assert "app.pef" in compiled(tmp_path).refused()
    assert pefs(tmp_path) == ["app.pef"]


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 5), (signal.SIGTERM, 3), (signal.SIGKILL, 10)]
)
def test_stopped_at_any_moment(number: signal.Signals, times: int, tmp_path: Path) -> None:
    begin = time.perf_counter()
    assert compiled(tmp_path).status == 0
    longest = time.perf_counter() - begin
    path = tmp_path / "out/app/app.pef"
    old = path.read_bytes()
    moments = random.Random(number)
    for again in range(times):
        if again == times // 2:
            path.unlink()
        program = start(LOGREG, "compile", "--pef-name=app", "--lr", again + 1, folder=tmp_path)
        time.sleep(moments.uniform(0, longest))
        os.kill(program.pid, number)  # it is there, ended or not, until it is waited for
        done = program.wait()
        assert done.status in (0, 130, -number)
        assert number != signal.SIGINT or "Traceback" not in done.err, done.err
        if path.exists() and path.read_bytes() != old:
            bt.load(path)
    assert compiled(tmp_path).status == 0
    assert bt.load(path).hyperparameters["lr"] == 0.0015
    assert pefs(tmp_path) == ["app.pef"]


def test_killed_while_writing(tmp_path: Path) -> None:
    """At the worst moment: the bytes are written, the name is not yet theirs."""
    program = tmp_path / "killed.py"
    program.write_text(
        "import os, pathlib, runpy\n"
        "pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), 9)\n"
        f"runpy.run_path({str(LOGREG)!r}, run_name='__main__')\n"
    )
    done = run(program, "compile", "--pef-name=app", folder=tmp_path)
    assert done.status == -signal.SIGKILL
    (left,) = pefs(tmp_path)
    assert left.endswith(".partial")
    assert compiled(tmp_path).status == 0
    assert pefs(tmp_path) == ["app.pef"]
