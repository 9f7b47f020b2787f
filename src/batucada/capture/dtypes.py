"""PyTorch's dtypes and ours."""

from __future__ import annotations

from typing import Any

import torch

from batucada.errors import CaptureError
from batucada.ir.types import TORCH_NAMES, DType, Type

_TO_TORCH: dict[DType, torch.dtype] = {
    ours: getattr(torch, name) for ours, name in TORCH_NAMES.items()
}
_FROM_TORCH: dict[torch.dtype, DType] = {theirs: ours for ours, theirs in _TO_TORCH.items()}


def torch_dtype(dtype: DType) -> torch.dtype:
    return _TO_TORCH[dtype]


def dtype_of(dtype: Any) -> DType:
    """CaptureError for a dtype that programs cannot hold (complex, quantized, float8)."""
    if dtype not in _FROM_TORCH:
        raise CaptureError(f"tensors of dtype {dtype} are not supported; cast to float32 first")
    return _FROM_TORCH[dtype]


def type_of(tensor: torch.Tensor) -> Type:
    """Of a complex one that of its parts, along a last dimension."""
    if tensor.is_complex():
        return Type(dtype_of(tensor.dtype.to_real()), (*tensor.shape, 2))
    return Type(dtype_of(tensor.dtype), tuple(tensor.shape))
