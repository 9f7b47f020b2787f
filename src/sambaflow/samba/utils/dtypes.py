"""Names of element types."""

from __future__ import annotations

import enum

import torch

from batucada.errors import OptionError


class SNType(enum.Enum):
    """The device's element types."""

    BOOL = "bool"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    FP16 = "float16"
    BF16 = "bfloat16"
    FP32 = "float32"

    @property
    def to_torch_reference_type(self) -> torch.dtype:
        return getattr(torch, self.value)


_SHORT_NAMES = {
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64",
    "float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64",
    "short": "int16",
}  # fmt: skip


def parse_dtype(text: str) -> torch.dtype:
    """`float32`, `torch.float32` or `fp32` as a dtype; OptionError for any other word."""
    word = text.strip().lower().removeprefix("torch.")
    found = getattr(torch, _SHORT_NAMES.get(word, word), None)
    if not isinstance(found, torch.dtype):
        raise OptionError(f"{text!r} is not a dtype; expected one like float32, bf16 or int16")
    return found
