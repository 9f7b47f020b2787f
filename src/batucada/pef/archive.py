"""The container: a zip whose comment, the last bytes of the file, seals all bytes before it.

A zip's own checksums leave header fields and gaps uncovered; the seal covers every byte.  It
detects damage, it is no signature: who can write a PEF can seal it.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from batucada.errors import PefError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MANIFEST = "manifest.json"
ZIP_MAGIC = b"PK\x03\x04"
_CHUNK_BYTES = 1 << 16
_LOCAL_HEADER_BYTES = 30
_LENGTHS_AT = 26
"""In a local header: two bytes each for the lengths of the name and of what follows it."""
SEAL = b"batucada-pef sha256:"
DIGEST_BYTES = 64
SEAL_BYTES = len(SEAL) + DIGEST_BYTES
DEFLATE_LIMIT_BYTES = 256 << 20
"""A member that unpacks to more is stored, so that a small file never unpacks to a huge one."""
_DEFLATE_LEVEL = 3
"""A fifth larger than with zlib's usual 6, in less than half the time."""

_MEMBER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OSError, RuntimeError,
    OverflowError, LookupError, MemoryError,
)  # fmt: skip
"""What the zip module raises on a file that is sealed and yet no proper zip."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A member as it lies in the file: packed once, it can be written to several."""

    info: zipfile.ZipInfo
    data: bytes
    sha256: str  # of what it unpacks to


def packed(name: str, data: bytes) -> Packed:
    if not _MEMBER_NAME.fullmatch(name):
        raise PefError(f"{name!r} is no name for a member of a PEF")
    info = _header(name, len(data))
    digest = hashlib.sha256(data).hexdigest()
    info.CRC, info.file_size = zlib.crc32(data), len(data)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        deflate = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = deflate.compress(data) + deflate.flush()
    info.compress_size = len(data)
    return Packed(info, data, digest)


def write_archive(file: BufferedRandom, manifest: bytes, members: Iterable[Packed]) -> None:
    """Write the manifest and `members` in order to the empty `file`, which is also readable.
    Deterministic.
    """
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = SEAL + b"0" * DIGEST_BYTES
        header = _header(MANIFEST, len(manifest))
        archive.writestr(header, manifest, compresslevel=_DEFLATE_LEVEL)
        for member in members:
            _append(archive, file, member)
    end = file.seek(-DIGEST_BYTES, io.SEEK_END)
    file.truncate()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")
    file.seek(end)
    file.write(digest.hexdigest().encode())


def _append(archive: zipfile.ZipFile, file: BufferedRandom, member: Packed) -> None:
    """As `writestr` for what is packed already, which the zip module has no call for."""
    info = copy.copy(member.info)
    info.header_offset = archive.start_dir
    file.seek(archive.start_dir)
    file.write(info.FileHeader())
    file.write(member.data)
    archive.start_dir = file.tell()
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info


def _header(name: str, length: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    dense = name.endswith(".safetensors") or length > DEFLATE_LIMIT_BYTES
    info.compress_type = zipfile.ZIP_STORED if dense else zipfile.ZIP_DEFLATED
    return info


class _OwnPlace(io.RawIOBase):
    """An open file that is only read and whose place this object keeps: two processes after a fork
    would share that of the file itself.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = os.fstat(self._file).st_size
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: WriteableBuffer) -> int:
        found = os.preadv(self._file, [buffer], self._place)
        self._place += found
        return found

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def open_sealed(path: Path) -> BinaryIO:
    """PefError unless the file is a whole, undamaged PEF container; OSError, ValueError as
    `open`.
    """
    file = io.BufferedReader(_OwnPlace(path))
    head = file.read(_LOCAL_HEADER_BYTES + len(MANIFEST))
    if not head:
        raise PefError("the file is empty")
    if not head.startswith(ZIP_MAGIC):
        raise PefError("not a PEF: it is no zip file")
    file.seek(max(0, file.seek(0, io.SEEK_END) - SEAL_BYTES))
    seal = file.read()
    if not seal.startswith(SEAL):
        if head.endswith(MANIFEST.encode()):
            raise PefError("the PEF is damaged: its end is missing; compile the model again")
        raise PefError("not a PEF: a zip file without a PEF's seal")
    if _digest(file, file.tell() - DIGEST_BYTES).encode() != seal[len(SEAL) :]:
        raise PefError("the PEF is damaged: its bytes do not match its seal; compile it again")
    return file


def _digest(file: BinaryIO, size_bytes: int) -> str:
    """SHA-256 of the beginning of `file`."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(_CHUNK_BYTES, size_bytes - file.tell())):
        digest.update(chunk)
    return digest.hexdigest()


class Archive:
    """The members of a sealed container, unpacked one at a time from its file, which stays open.
    Damage raises PefError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise PefError(f"the PEF is damaged: {error}") from None
        infos = self._zip.infolist()
        if not infos or infos[0].filename != MANIFEST:
            raise PefError(f"not a PEF: its first member is not {MANIFEST}")
        size_bytes = file.seek(0, io.SEEK_END)
        for info in infos:
            _check_member(info, size_bytes)
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise PefError("the PEF is damaged: two members have the same name")

    @property
    def sizes(self) -> dict[str, int]:
        """Unpacked bytes of each member, in file order."""
        return {name: info.file_size for name, info in self._infos.items()}

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._infos[name])
        except _DAMAGE as error:
            raise PefError(f"the PEF is damaged: member {name}: {error}") from None

    def packed(self, name: str, sha256: str) -> Packed:
        """As it lies in the file, for another; `sha256` is what the manifest says."""
        info = self._infos[name]
        try:
            lengths = struct.unpack("<HH", self._bytes(info.header_offset + _LENGTHS_AT, 4))
            start = info.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)
            return Packed(info, self._bytes(start, info.compress_size), sha256)
        except _DAMAGE as error:
            raise PefError(f"the PEF is damaged: member {name}: {error}") from None

    def _bytes(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError("its end is missing")
        return data


def _check_member(info: zipfile.ZipInfo, file_bytes: int) -> None:
    name = info.filename
    if not _MEMBER_NAME.fullmatch(name):
        raise PefError(f"the PEF is damaged: {name!r} is no name for a member")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PefError(f"the PEF is damaged: member {name} is neither stored nor deflated")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    limit = DEFLATE_LIMIT_BYTES if deflated else file_bytes
    if info.file_size > limit:
        raise PefError(
            f"the PEF is damaged: member {name} declares {info.file_size} bytes, more than {limit}"
        )
