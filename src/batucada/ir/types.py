"""Tensor types: a static shape and a dtype.  `f32[8,16]` in print."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

DType = Literal["f64", "f32", "bf16", "f16", "i64", "i32", "i16", "i8", "u8", "bool"]

ITEM_BYTES: dict[DType, int] = {
    "f64": 8, "f32": 4, "bf16": 2, "f16": 2,
    "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "bool": 1,
}  # fmt: skip
FLOATS: frozenset[DType] = frozenset({"f64", "f32", "bf16", "f16"})

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """A dense row-major tensor: every dimension is a known, non-negative integer."""

    dtype: DType
    shape: Shape = ()

    def __str__(self) -> str:
        return f"{self.dtype}[{_extents(self.shape)}]"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * ITEM_BYTES[self.dtype]

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def strides(self) -> Shape:
        """Row-major strides, in elements."""
        return row_major(self.shape)


@lru_cache(maxsize=4096)
def _extents(shape: Shape) -> str:
    return ",".join(map(str, shape))


def row_major(shape: Shape) -> Shape:
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def parse_type(text: str) -> Type:
    """Inverse of `str(type)`; ValueError when `text` is not a type."""
    match = re.fullmatch(r"(\w+)\[([\d,]*)\]", text)
    if match is None or match[1] not in ITEM_BYTES:
        raise ValueError(f"not a tensor type: {text!r}")
    return Type(cast(DType, match[1]), tuple(int(d) for d in match[2].split(",") if d))


TORCH_NAMES: dict[DType, str] = {
    "f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8", "bool": "bool",
}  # fmt: skip
"""PyTorch's names of the dtypes: `getattr(torch, TORCH_NAMES[dtype])`."""
