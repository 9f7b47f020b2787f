"""Other processors, an empty PATH, a terminal, and a signal while running."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import batucada as bt
from batucada.codegen.target import host_target, runs_on, target_of
from batucada.errors import PefError
from batucada.pipeline import STEPS
from tests.robustness.commands import LOGREG, Done, pefs, run, start
from tests.robustness.nets import Classifier, batch

INPUTS = tuple(
    bt.NamedTensor(name, tensor) for name, tensor in zip(("x", "label"), batch(), strict=True)
)


def compiled(folder: Path, target: str | None = None) -> Path:
    torch.manual_seed(1)
    model = Classifier()
    path = folder / f"{target}.pef"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = bt.Options(target=target)  # type: ignore[arg-type]
    bt.compile(model, INPUTS, optimizers=[optimizer], path=path, options=options)
    return path


def loss_after_five_steps(path: Path) -> float:
    torch.manual_seed(1)
    model, program = Classifier(), bt.load(path)
    program.to_device(model)
    for _ in range(5):
        loss, _ = program.run(["x", "label"], batch())
    return loss.tensor().item()


@pytest.mark.skipif(
    not host_target().is_x86 or runs_on(target_of("x86-64-v4"), host_target()),
    reason="this processor runs every level, or is another",
)
def test_a_higher_level_is_built_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = loss_after_five_steps(compiled(tmp_path))
    higher = compiled(tmp_path, "x86-64-v4")
    capfd.readouterr()
    assert loss_after_five_steps(higher) == pytest.approx(wanted, rel=1e-5)
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "x86-64-v4.pef was built for x86-64-v4, this processor is x86-64-v" in line


@pytest.mark.skipif(not host_target().is_x86, reason="this processor runs x86-64")
def test_a_lower_level_runs_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lower = compiled(tmp_path, "x86-64-v2")
    assert loss_after_five_steps(lower) == pytest.approx(
        loss_after_five_steps(compiled(tmp_path)), rel=1e-5
    )
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not host_target().is_x86, reason="this processor runs aarch64")
def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path, "aarch64")
    with pytest.raises(PefError, match=r"aarch64.*this machine is x86_64.*compile it again"):
        bt.load(path)


def test_no_compiler_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    for argv in (["compile", "--pef-name=app"], ["test", "--pef=out/app/app.pef"]):
        done = run(LOGREG, *argv, folder=tmp_path, environ=environ)
        assert (done.status, done.err) == (0, "")
    assert "Test passed" in done.out


def on_a_terminal(command: list[str], folder: Path) -> str:
    """What a command prints when its stdout is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    printed = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        printed += piece
        if not piece:
            break
    os.close(ours)
    assert process.wait(60) == 0
    return printed.decode()


def test_compile_shows_its_steps_on_a_terminal_only(tmp_path: Path) -> None:
    argv = ["compile", "--pef-name=app"]
    printed = on_a_terminal([sys.executable, str(LOGREG), *argv], tmp_path)
    shown = re.findall(r"^\[info   \] (\w+) +\d+\.\d{3} s\r$", printed, re.MULTILINE)
    assert shown == list(STEPS)
    quiet = run(LOGREG, *argv, folder=tmp_path)
    kinds = [line.split("]")[-1].split()[:2] for line in quiet.out.splitlines()]
    assert kinds == [["#", "Placing"], ["Compilation", "succeeded."], ["PEF", "file"]]
    assert quiet.err == ""


def ended_by(number: signal.Signals, folder: Path) -> Done:
    """A long run that is sent a signal."""
    argv = ["measure-performance", "--pef=out/app/app.pef", "--min-duration=60"]
    program = start(LOGREG, *argv, folder=folder)
    give_up = time.monotonic() + 60
    while "initial run completes." not in (program.spoken / "stdout").read_text():
        assert time.monotonic() < give_up, "the run does not begin"
        time.sleep(0.02)
    os.kill(program.pid, number)
    return program.wait()


def test_a_signal_ends_a_run(tmp_path: Path) -> None:
    assert run(LOGREG, "compile", "--pef-name=app", folder=tmp_path).status == 0
    for number, expected in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)):
        done = ended_by(number, tmp_path)
        assert done.status == expected
        assert "Traceback" not in done.err
    assert pefs(tmp_path) == ["app.pef"]
