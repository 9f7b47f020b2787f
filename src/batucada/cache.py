"""Programs compiled before, by what they were compiled from.

An entry is a PEF under the SHA-256 of everything its code depends on.  The folder is
`$XDG_CACHE_HOME/batucada` unless `BATUCADA_CACHE` names another or says `off`.  An entry that is
damaged is removed; a folder that cannot be written is no cache; no failure here fails a compile.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from batucada.errors import BatucadaError
from batucada.pef import Manifest, Packed, Pef, read_pef, write_pef

MAX_BYTES = 2**30
"""Beyond this the entries that were not used for longest go."""


def cache_folder(option: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that `option` (a path, `off` or None for the default) stands for."""
    if option == "off":
        return None
    if option:
        return Path(option)
    base = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "batucada"


def key_of(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def compiler_fingerprint() -> str:
    """Of the compiler's own source and of what it compiles with: a change of either is another
    compiler.  Once a process, which runs what it has loaded.
    """
    package = Path(__file__).parent
    sources = sorted(package.rglob("*.py"))
    return key_of([version("llvmlite"), version("torch"), *(path.read_bytes() for path in sources)])


class Cache:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> Pef | None:
        """The entry, in memory and undamaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            found = read_pef(path)
        except BatucadaError:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def keep(self, key: str, manifest: Manifest, members: Mapping[str, Packed]) -> None:
        with suppress(OSError, BatucadaError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_pef(self._path(key), manifest, members)
            self._shrink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.pef"

    def _shrink(self) -> None:
        """Oldest use first; another process may remove entries, too."""
        entries = []
        for path in self._folder.glob("*.pef"):
            with suppress(OSError):
                entries.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= MAX_BYTES:
                return
            with suppress(OSError):
                path.unlink()
                total -= size
