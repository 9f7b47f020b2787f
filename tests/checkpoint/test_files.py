"""Checkpoints on disk: whole or not at all, damage seen, the newest ones kept."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.checkpoint import files
from batucada.checkpoint.files import MANIFEST, CheckpointFolder
from batucada.errors import CheckpointError, OutputError

STATE = "state.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CheckpointFolder]:
    made = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    yield made
    made.close()


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(entry.name for entry in folder.path.iterdir() if entry.name != ".lock")


def test_the_newest_come_back_and_older_ones_go(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    for step in (3, 20, 100):
        folder.write(step, {STATE: b"%d" % step}, {"epoch": 1})
    found = folder.newest()
    assert found is not None
    assert found.files == {STATE: b"100"}
    assert names(folder) == ["step-000000020", "step-000000100"]
    assert json.loads((found.path / MANIFEST).read_text())["epoch"] == 1


@settings(max_examples=40)
@given(where=st.integers(0, 999), value=st.integers(0, 255), cut=st.booleans())
def test_any_damage_to_the_state_is_seen(
    tmp_path_factory: pytest.TempPathFactory, where: int, value: int, cut: bool
) -> None:
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"), keep=2)
    folder.write(1, {STATE: b"old"}, {})
    path = folder.write(2, {STATE: bytes(i % 256 for i in range(1000))}, {}) / STATE
    whole = path.read_bytes()
    damaged = whole[:where] if cut else whole[:where] + bytes([value]) + whole[where + 1 :]
    path.write_bytes(damaged)
    found = folder.newest()
    folder.close()
    assert found is not None
    assert found.files[STATE] == (whole if damaged == whole else b"old")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1, "files": {}}'])
def test_a_damaged_manifest_is_seen(folder: CheckpointFolder, text: str, capsys) -> None:
    folder.write(1, {STATE: b"old"}, {})
    (folder.write(2, {STATE: b"new"}, {}) / MANIFEST).write_text(text)
    found = folder.newest()
    assert found is not None
    assert found.files[STATE] == b"old"
    assert "step-000000002 is damaged and left out: manifest.json" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(
    folder: CheckpointFolder,
) -> None:
    folder.write(1, {STATE: b"old"}, {})
    (folder.write(5, {STATE: b"new"}, {}) / STATE).unlink()
    folder.write(3, {STATE: b"again"}, {})
    folder.write(5, {STATE: b"again"}, {})
    found = folder.newest()
    assert found is not None
    assert found.files[STATE] == b"again"
    assert names(folder) == ["step-000000003", "step-000000005"]


def test_all_damaged_is_an_error_and_nothing_goes(folder: CheckpointFolder) -> None:
    (folder.write(1, {STATE: b"x"}, {}) / STATE).write_bytes(b"y")
    with pytest.raises(CheckpointError, match=r"all 1 checkpoints .* are damaged; remove them"):
        folder.newest()
    assert names(folder) == ["step-000000001"]


def test_a_newer_format_is_refused(folder: CheckpointFolder) -> None:
    path = folder.write(1, {STATE: b"x"}, {}) / MANIFEST
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(CheckpointError, match="has format 9, this version reads up to 1"):
        folder.newest()


def test_a_full_disk_leaves_the_earlier_checkpoints(folder: CheckpointFolder) -> None:
    folder.write(1, {STATE: b"old"}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*step-000000002: File too large"):
            folder.write(2, {STATE: bytes(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    found = folder.newest()
    assert found is not None
    assert found.files[STATE] == b"old"
    assert names(folder) == ["step-000000001"]


@pytest.mark.parametrize("place", ["/proc/nowhere", "a file"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(OutputError, match="cannot write checkpoints to"):
        CheckpointFolder(tmp_path / place, keep=1)


def in_a_child(act: Callable[[], object]) -> int:
    """`act` in a process of its own; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_and_die(path: Path, name: str, at: int) -> None:
    """Write a checkpoint, and be killed in the next before the call number `at` of os.`name`."""
    folder = CheckpointFolder(path, keep=1)
    folder.write(1, {STATE: b"old"}, {})
    call, calls = getattr(os, name), itertools.count(1)

    def die_at(*args: object, **kwargs: object) -> object:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)

    setattr(os, name, die_at)
    folder.write(2, {STATE: b"new"}, {})


@pytest.mark.parametrize(
    ("call", "at", "left"),
    [
        *(("mkdir", 1, b"old"), ("fsync", 1, b"old"), ("fsync", 2, b"old"), ("fsync", 3, b"old")),
        *(("rename", 1, b"old"), ("fsync", 4, b"new"), ("rename", 2, b"new"), ("rmdir", 1, b"new")),
    ],
)
def test_killed_at_any_moment(tmp_path: Path, call: str, at: int, left: bytes) -> None:
    """The rename is the moment at which the new checkpoint is there."""
    assert in_a_child(lambda: write_and_die(tmp_path, call, at)) == -signal.SIGKILL
    folder = CheckpointFolder(tmp_path, keep=1)
    found = folder.newest()
    folder.close()
    assert found is not None
    assert found.files[STATE] == left
    assert not list(tmp_path.glob(".step-*"))


def test_two_runs_in_one_folder(folder: CheckpointFolder, capfd, monkeypatch) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.2)
    assert in_a_child(lambda: CheckpointFolder(folder.path, keep=1)) == 1
    assert f"is in use by another run (process {os.getpid()} on " in capfd.readouterr().err
    folder.close()
    assert in_a_child(lambda: CheckpointFolder(folder.path, keep=1)) == 0
