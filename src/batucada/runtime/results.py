"""What a run returns.  Each result has memory of its own; small ones are cut from a block of
many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from batucada.ir.types import TORCH_NAMES
from batucada.pef import PlaceRecord, SymbolRecord

_BLOCK_BYTES = 64 * 1024
_MOST_RECORDS = 64
_ALIGNMENT = 64


class Result:
    """An output of one run; its tensor is built when it is first asked for."""

    __slots__ = ("_block", "_offset", "_tensor", "symbol")

    def __init__(self, symbol: SymbolRecord, block: np.ndarray, offset: int) -> None:
        self.symbol = symbol
        self._block = block
        self._offset = offset
        self._tensor: torch.Tensor | None = None

    @property
    def name(self) -> str:
        return self.symbol.name

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.symbol.torch_shape)

    @property
    def dtype(self) -> torch.dtype:
        return given_dtype(self.symbol)

    def tensor(self) -> torch.Tensor:
        if self._tensor is None:
            self._tensor = tensor_at(self._block, self._offset, self.dtype, self.shape)
        return self._tensor

    def __repr__(self) -> str:
        return f"Result({self.name!r}, {self.tensor()!r})"


class ResultMemory:
    """Gives each run a record of the size of all outputs."""

    def __init__(self, symbols: Sequence[SymbolRecord]) -> None:
        self.symbols = tuple(symbols)
        self._offsets: list[int] = []
        size = 0
        for symbol in symbols:
            self._offsets.append(size)
            size += -(-max(symbol.bytes, 1) // _ALIGNMENT) * _ALIGNMENT
        self._size = size
        self._records = max(1, min(_MOST_RECORDS, _BLOCK_BYTES // max(size, 1)))
        self._next = self._records
        self._block = np.empty(0, np.uint8)
        self._address = 0
        self._cuts = tuple(zip(self.symbols, self._offsets, strict=True))

    def record(self, table: Any) -> tuple[Result, ...]:
        """The results of a run that is about to write them; their addresses go into the table."""
        if self._next == self._records:
            self._block, self._address = aligned_block(self._size * self._records, zero=False)
            self._next = 0
        start = self._size * self._next
        self._next += 1
        block, address = self._block, self._address + start
        found = []
        for symbol, offset in self._cuts:
            table[symbol.slot] = address + offset
            found.append(Result(symbol, block, start + offset))
        return tuple(found)


def aligned_block(size: int, zero: bool) -> tuple[np.ndarray, int]:
    """Bytes at an address that is a multiple of 64.  Zeroed memory is not touched until it is
    used.
    """
    make = np.zeros if zero else np.empty
    raw = make(size + _ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % _ALIGNMENT
    block = raw[shift : shift + size]
    return block, raw.ctypes.data + shift


def tensor_at(
    block: np.ndarray, offset: int, dtype: torch.dtype, shape: Sequence[int]
) -> torch.Tensor:
    """A tensor of the memory `offset` bytes behind the start of `block`, which it keeps alive."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(block, dtype=dtype, offset=offset, count=count).view(shape)


def torch_dtype(symbol: SymbolRecord | PlaceRecord) -> torch.dtype:
    """What memory holds."""
    return getattr(torch, TORCH_NAMES[symbol.dtype])


def given_dtype(symbol: SymbolRecord) -> torch.dtype:
    """That of PyTorch's tensor."""
    kept = torch_dtype(symbol)
    return kept.to_complex() if symbol.is_complex else kept


def given(symbol: SymbolRecord, kept: torch.Tensor) -> torch.Tensor:
    """A dense tensor as PyTorch has it."""
    return torch.view_as_complex(kept) if symbol.is_complex else kept


def as_kept(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of PyTorch's as memory holds it, which is the same memory where that can be."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
