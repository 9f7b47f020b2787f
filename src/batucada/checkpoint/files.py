"""Checkpoints on disk: folders that appear whole or not at all, and tell when they are damaged.

    step-000000120/
        manifest.json    size and SHA-256 of every other file
        state.pt         what the caller gave

A checkpoint is made under a hidden name beside its final one; files and folders are flushed to the
disk before the rename.  A hidden name that is left over is what a killed process did not finish.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from batucada.errors import CheckpointError, OutputError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_LOCK = ".lock"
# A run that was just killed may take a moment to disappear.
_LOCK_WAIT_S = 10.0


@dataclass(frozen=True)
class Stored:
    """A whole checkpoint: its folder and its files."""

    path: Path
    files: Mapping[str, bytes]


class CheckpointFolder:
    """The checkpoints of one training, of which the newest `keep` stay; one process at a time."""

    def __init__(self, path: Path | str, keep: int) -> None:
        """OutputError when the folder cannot be written, CheckpointError when another has it."""
        self.path = Path(path)
        self.keep = keep
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise OutputError(f"cannot write checkpoints to {path}: {_reason(error)}") from None
        self._take_lock(self._lock)
        self._remove_leftovers()

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def _take_lock(self, lock: IO[str]) -> None:
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return  # a file system without locks
            if time.monotonic() > give_up:
                lock.seek(0)
                raise CheckpointError(
                    f"{self.path} is in use by another run ({lock.read().strip()});"
                    " wait for its end, or give this run another folder"
                )
            time.sleep(0.1)
        with suppress(OSError):  # a full disk: it is only for the message
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}")
            lock.flush()

    def _remove_leftovers(self) -> None:
        for entry in self.path.glob(".step-*"):
            shutil.rmtree(entry, ignore_errors=True)

    # ---- writing

    def write(self, step: int, files: Mapping[str, bytes], about: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`, then remove those older than the newest `keep`.

        `about` goes into the manifest for people to read.  OutputError when the checkpoint cannot
        be written: there is none of that step then, and the others are untouched.
        """
        target = self.path / _name(step)
        partial = self.path / f".{target.name}.partial"
        try:
            _write_folder(partial, {**files, MANIFEST: _manifest(files, about)})
            if target.exists():  # what `newest` has found to be damaged
                self._discard(target)
            partial.rename(target)
            _sync_folder(self.path)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {_reason(error)}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._prune(step)
        return target

    def _prune(self, newest: int) -> None:
        """What counts a higher step than the newest was damaged, or it would have been resumed."""
        old = [step for step in self.steps() if step <= newest][: -self.keep]
        for step in old:
            with suppress(OSError):
                self._discard(self.path / _name(step))

    def _discard(self, checkpoint: Path) -> None:
        """First the name, so that nobody meets it half removed."""
        hidden = self.path / f".{checkpoint.name}.discarded"
        shutil.rmtree(hidden, ignore_errors=True)
        checkpoint.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    # ---- reading

    def steps(self) -> list[int]:
        """The steps of all checkpoints that are there, the newest last."""
        found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Stored | None:
        """The newest whole checkpoint, None where there is none at all.

        Damaged ones are left out with a line on stderr.  CheckpointError when all are damaged, or
        one was written by a newer version.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.path / _name(step)
            found = read_checkpoint(path)
            if isinstance(found, Stored):
                return found
            print(f"batucada: {path} is damaged and left out: {found}", file=sys.stderr, flush=True)
        if steps:
            raise CheckpointError(
                f"all {len(steps)} checkpoints in {self.path} are damaged; remove them to start"
                " anew, or give another folder"
            )
        return None


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _manifest(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    record = {"format_version": FORMAT_VERSION, **about, "files": described}
    return json.dumps(record, indent=1).encode()


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the names in it survive a power cut, on the file systems that can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: Path) -> Stored | str:
    """The checkpoint, or what is wrong with it."""
    try:
        record = json.loads((path / MANIFEST).read_bytes())
        version, described = record["format_version"], dict(record["files"])
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format {version}, this version reads up to {FORMAT_VERSION};"
                " resume with the version that wrote it"
            )
        files = {name: (path / name).read_bytes() for name in described}
        wrong = [n for n in files if hashlib.sha256(files[n]).hexdigest() != described[n]["sha256"]]
    except OSError as error:
        return f"{error.filename}: {_reason(error)}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    if wrong or not files:
        return f"{wrong[0]} is not what was written" if wrong else f"{MANIFEST} names no file"
    return Stored(path, files)
