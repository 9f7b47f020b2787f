"""A loader for the ELF64 relocatable objects that code generation makes for x86-64.

Bytes in, addresses of functions out.  Not a linker: one object, position independent code, external
functions from the C and mathematics libraries only.  Sizes and offsets are checked before they are
used.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from batucada.errors import PefError

_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_WRITE, _SHF_ALLOC = 1, 2
_SHN_UNDEF, _SHN_ABS, _SHN_LORESERVE = 0, 0xFFF1, 0xFF00
_STB_GLOBAL = 1
_R_64, _R_PC32, _R_PLT32, _R_GOTPCREL, _R_32, _R_32S = 1, 2, 4, 9, 10, 11
_R_GOTPCRELX, _R_REX_GOTPCRELX = 41, 42
_GOT = frozenset({_R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX})
_STUB = b"\xff\x25\x00\x00\x00\x00"  # jmp *0(%rip), followed by the address
_STUB_BYTES = 16
_LARGEST = 1 << 30
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class Section:
    """A section header (ELF-64 object file format, section 4) and its name."""

    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_bytes: int


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    binding: int
    section: int
    value: int


@dataclass(frozen=True, slots=True)
class Relocation:
    section: int
    offset: int
    type: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """What is read from an object, before anything is placed."""

    data: bytes
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    def bytes_of(self, section: Section) -> bytes:
        if section.type == _SHT_NOBITS:
            return bytes(section.size)
        return self.data[section.offset : section.offset + section.size]


def read_object(data: bytes) -> ObjectFile:
    """Parse an object; PefError when it is none, is damaged, or is for another processor."""
    try:
        return _read(data)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise PefError(f"the object code is damaged: {error}") from error


def _read(data: bytes) -> ObjectFile:
    if data[:6] != b"\x7fELF\x02\x01":
        raise PefError("the object code is damaged: no 64-bit ELF file")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if (kind, machine) != (1, 62):
        raise PefError(f"the object code is no x86-64 relocatable (type {kind}, machine {machine})")
    table, count, names = _header(data)
    raw = [_section_fields(data, table + 64 * n) for n in range(count)]
    strings = raw[names]
    sections = tuple(
        Section(_string(data, strings[4], strings[5], s[0]), *_numbers(s)) for s in raw
    )
    for section in sections:
        _check_section(section, len(data))
    tables = [section for section in sections if section.type == _SHT_SYMTAB]
    symbols = tuple(s for table in tables[:1] for s in _symbols(data, table, sections))
    return ObjectFile(data, sections, symbols, tuple(_relocations(data, sections)))


def _header(data: bytes) -> tuple[int, int, int]:
    table = struct.unpack_from("<Q", data, 40)[0]
    entry_bytes, count, names = struct.unpack_from("<HHH", data, 58)
    if entry_bytes != 64 or names >= count:
        raise ValueError("section table")
    return table, count, names


def _section_fields(data: bytes, offset: int) -> tuple[int, ...]:
    return struct.unpack_from("<IIQQQQIIQQ", data, offset)


def _numbers(raw: tuple[int, ...]) -> tuple[int, int, int, int, int, int, int, int]:
    """type, flags, offset, size, link, info, align, entry size: all but name and address."""
    return raw[1], raw[2], raw[4], raw[5], raw[6], raw[7], raw[8], raw[9]


def _check_section(section: Section, file_bytes: int) -> None:
    end = section.size if section.type == _SHT_NOBITS else section.offset + section.size
    limit = _LARGEST if section.type == _SHT_NOBITS else file_bytes
    if end > limit:
        raise ValueError(f"section {section.name!r} ends at {end}, beyond {limit}")
    if section.align > _PAGE or section.align & (section.align - 1):
        raise ValueError(f"section {section.name!r} asks for alignment {section.align}")


def _string(data: bytes, offset: int, size: int, start: int) -> str:
    end = data.find(b"\0", offset + start, offset + size)
    if end < 0:
        raise ValueError("a name without an end")
    return data[offset + start : end].decode()


def _symbols(data: bytes, table: Section, sections: tuple[Section, ...]) -> Iterable[Symbol]:
    strings = sections[table.link]
    for at in range(table.offset, table.offset + table.size, 24):
        name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, at)
        text = _string(data, strings.offset, strings.size, name)
        if section < _SHN_LORESERVE and section >= len(sections):
            raise ValueError(f"symbol {text!r} is in section {section} of {len(sections)}")
        yield Symbol(text, info >> 4, section, value)


def _relocations(data: bytes, sections: tuple[Section, ...]) -> Iterable[Relocation]:
    for table in sections:
        if table.type != _SHT_RELA:
            continue
        target = sections[table.info]
        for at in range(table.offset, table.offset + table.size, 24):
            offset, info, addend = struct.unpack_from("<QQq", data, at)
            kind = info & 0xFFFFFFFF
            width = 8 if kind == _R_64 else 4
            if target.flags & _SHF_ALLOC and offset + width > target.size:
                raise ValueError(f"a relocation at {offset} of {target.name!r}")
            yield Relocation(table.info, offset, kind, info >> 32, addend)


class LoadedObject:
    """The code of an object in memory, and its functions; the object itself is not kept."""

    def __init__(self, data: bytes) -> None:
        placed = _Placement(read_object(data))
        self._memory = placed.memory
        self._functions = placed.functions()

    def address(self, name: str) -> int | None:
        """Where the function called `name` is; None when the object has none."""
        return self._functions.get(name)


class _Placement:
    """An object placed in memory: read-only executable pages, then writable ones if it has such
    data.
    """

    def __init__(self, object_file: ObjectFile) -> None:
        self._object = object_file
        self._places, executable, total = self._layout()
        self.memory = mmap.mmap(-1, max(total, _PAGE))
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self._copy()
        for relocation in self._object.relocations:
            self._relocate(relocation)
        _protect(self._base, max(executable, _PAGE))

    def functions(self) -> dict[str, int]:
        return {
            symbol.name: self._address(symbol)
            for symbol in self._object.symbols
            if symbol.binding == _STB_GLOBAL and symbol.section != _SHN_UNDEF
        }

    def _layout(self) -> tuple[dict[int, int], int, int]:
        """(offset of each section, executable bytes, all bytes); stubs and addresses of externals
        follow the read-only sections."""
        allocated = [(n, s) for n, s in enumerate(self._object.sections) if s.flags & _SHF_ALLOC]
        places: dict[int, int] = {}
        end = 0
        for n, section in allocated:
            if not section.flags & _SHF_WRITE:
                places[n] = _round_up(end, section.align)
                end = places[n] + section.size
        self._stubs = _round_up(end, _STUB_BYTES)
        end = executable = _round_up(
            self._stubs + 2 * _STUB_BYTES * len(self._object.symbols), _PAGE
        )
        for n, section in allocated:
            if section.flags & _SHF_WRITE:
                places[n] = _round_up(end, section.align)
                end = places[n] + section.size
        return places, executable, _round_up(end, _PAGE)

    def _copy(self) -> None:
        for n, place in self._places.items():
            section = self._object.sections[n]
            self.memory[place : place + section.size] = self._object.bytes_of(section)

    def _address(self, symbol: Symbol) -> int:
        if symbol.section == _SHN_ABS:
            return symbol.value
        if symbol.section == _SHN_UNDEF:
            return external_address(symbol.name)
        if symbol.section not in self._places:
            raise PefError(f"the object code is damaged: {symbol.name!r} is in no loaded section")
        section = self._object.sections[symbol.section]
        if symbol.value > section.size:
            raise PefError(f"the object code is damaged: {symbol.name!r} lies outside its section")
        return self._base + self._places[symbol.section] + symbol.value

    def _relocate(self, relocation: Relocation) -> None:
        if relocation.section not in self._places:
            return
        if relocation.symbol >= len(self._object.symbols):
            raise PefError(f"the object code is damaged: no symbol {relocation.symbol}")
        at = self._places[relocation.section] + relocation.offset
        target = self._target(relocation)
        if relocation.type == _R_64:
            struct.pack_into("<Q", self.memory, at, (target + relocation.addend) & (1 << 64) - 1)
            return
        relative = relocation.type in (_R_PC32, _R_PLT32) or relocation.type in _GOT
        if not relative and relocation.type not in (_R_32, _R_32S):
            raise PefError(f"the object code has a relocation of unknown type {relocation.type}")
        value = target + relocation.addend - (self._base + at if relative else 0)
        low, high = (0, 1 << 32) if relocation.type == _R_32 else (-(1 << 31), 1 << 31)
        if not low <= value < high:
            raise PefError(f"the object code is damaged: an address is out of reach by {value}")
        struct.pack_into("<I", self.memory, at, value & 0xFFFFFFFF)

    def _target(self, relocation: Relocation) -> int:
        """The address to refer to: the symbol's, or that of its stub or of the cell with its
        address.
        """
        symbol = self._object.symbols[relocation.symbol]
        address = self._address(symbol)
        near = symbol.section != _SHN_UNDEF
        if relocation.type == _R_64 or (near and relocation.type not in _GOT):
            return address
        stub = self._stubs + 2 * _STUB_BYTES * relocation.symbol
        if relocation.type in _GOT:
            struct.pack_into("<Q", self.memory, stub + _STUB_BYTES, address)
            return self._base + stub + _STUB_BYTES
        self.memory[stub : stub + 14] = _STUB + struct.pack("<Q", address)
        return self._base + stub


def _round_up(value: int, multiple: int) -> int:
    return -(-value // max(multiple, 1)) * max(multiple, 1)


@cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """The process itself (the C library), then the mathematics library."""
    return ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libm.so.6")


def external_address(name: str) -> int:
    """Where the C or the mathematics library has `name`; PefError when neither does."""
    for library in reversed(_libraries()):
        try:
            return ctypes.cast(library[name], ctypes.c_void_p).value or 0
        except (AttributeError, ValueError):
            continue
    raise PefError(f"the object code needs {name!r}, which this system's C library does not have")


def _protect(address: int, size: int) -> None:
    """Read and execute, no longer write."""
    mprotect = _libraries()[0].mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        why = os.strerror(ctypes.get_errno())
        raise PefError(f"this system does not let native code be loaded: mprotect: {why}")
