"""Manifest and members -> file, whole or not at all."""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batucada.errors import OutputError
from batucada.pef.archive import Packed, packed, write_archive
from batucada.pef.manifest import Manifest, manifest_text


def pack_members(members: Mapping[str, bytes]) -> dict[str, Packed]:
    """For `write_pef`, where more than one PEF gets them."""
    return {name: packed(name, members[name]) for name in sorted(members)}


def write_pef(
    path: str | Path, manifest: Manifest, members: Mapping[str, bytes] | Mapping[str, Packed]
) -> None:
    """Write a PEF; its folder is created.  The same arguments give the same bytes.

    On any failure there is no file at `path`, or the old one untouched.  A killed process leaves at
    most a `*.partial` beside it, which the next write of that PEF removes.  Raises OutputError.
    """
    path = Path(path)
    given = {name: members[name] for name in sorted(members)}
    ready = [m if isinstance(m, Packed) else packed(name, m) for name, m in given.items()]
    digests = {name: member.sha256 for name, member in zip(given, ready, strict=True)}
    text = manifest_text(replace(manifest, members=digests))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        _write_atomically(path, text.encode(), ready)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_atomically(path: Path, manifest: bytes, members: Sequence[Packed]) -> None:
    partial = _partial_path(path)
    try:
        with partial.open("xb+") as file:
            write_archive(file, manifest, members)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # an interrupt, too, must leave nothing behind
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _partial_path(path: Path) -> Path:
    owner = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f"{path.name}.{owner}.partial")


def _remove_stale(path: Path) -> None:
    """Remove what dead processes of this machine left of earlier writes of `path`."""
    prefix = re.escape(f"{path.name}.{platform.node()}-")
    for entry in os.listdir(path.parent):
        match = re.fullmatch(rf"{prefix}(\d+)-\d+\.partial", entry)
        if match and not _is_alive(int(match[1])):
            (path.parent / entry).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, on the file systems that can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
