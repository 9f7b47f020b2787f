"""File -> verified PEF: the seal and the manifest at once, each member when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from batucada.errors import PefError
from batucada.pef.archive import MANIFEST, Archive, Packed, open_sealed
from batucada.pef.manifest import Manifest, parse_manifest

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True)
class Pef:
    """A verified PEF, whose file stays open: that at `path` may be removed or replaced."""

    path: Path
    manifest: Manifest
    archive: Archive

    @property
    def names(self) -> tuple[str, ...]:
        """The members, without the manifest."""
        return tuple(self.manifest.members)

    def member(self, name: str) -> bytes:
        """Contents of a member; PefError when there is none of that name or its hash differs."""
        if name not in self.manifest.members:
            raise PefError(f"{self.path}: there is no member {name!r}: it has {self.names}")
        data = _at(self.path, self.archive.read, name)
        if hashlib.sha256(data).hexdigest() != self.manifest.members[name]:
            raise PefError(f"{self.path}: the PEF is damaged: member {name} has another SHA-256")
        return data

    def packed(self) -> dict[str, Packed]:
        """All members as they lie in the file, whose seal vouches for them."""
        digests = self.manifest.members
        return {name: self.archive.packed(name, digest) for name, digest in digests.items()}

    def text(self, name: str) -> str:
        """A text member; PefError when it is not UTF-8."""
        try:
            return self.member(name).decode()
        except UnicodeDecodeError:
            raise PefError(f"{self.path}: member {name} is not text") from None


def read_pef(path: str | Path) -> Pef:
    """Read and verify the PEF at `path`; PefError says in one line what is wrong with it."""
    path = Path(path)
    archive = _at(path, Archive, _at(path, _sealed, path))
    manifest = _at(path, _manifest, archive)
    return Pef(path, manifest, archive)


def _at(path: Path, step: Callable[[A], R], argument: A) -> R:
    """`step(argument)`, where an error names the file."""
    try:
        return step(argument)
    except PefError as error:
        raise PefError(f"{path}: {error}") from None


def _sealed(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise PefError("is not a file" if path.exists() else "no such PEF: compile it first")
        return open_sealed(path)
    except (OSError, ValueError) as error:
        raise PefError(f"cannot be read: {error}") from None


def _manifest(archive: Archive) -> Manifest:
    try:
        text = archive.read(MANIFEST).decode()
    except UnicodeDecodeError:
        raise PefError(f"{MANIFEST} is not text") from None
    manifest = parse_manifest(text)
    found, declared = set(archive.sizes) - {MANIFEST}, set(manifest.members)
    if missing := sorted(declared - found):
        raise PefError(f"the PEF is damaged: member {missing[0]} is missing")
    if extra := sorted(found - declared):
        raise PefError(f"the PEF is damaged: member {extra[0]} is not in its manifest")
    return manifest
