"""Mixed dtypes in one call, which torch refuses and SambaFlow's own functions take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CONTRACTIONS = {
    torch.matmul, torch.mm, torch.bmm, torch.addmm, F.linear, F.conv1d, F.conv2d, F.conv3d,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__,
}  # fmt: skip
_INDEX_ARGUMENT = {F.cross_entropy: 1, F.nll_loss: 1, F.embedding: 0}


def widened(func: Callable, args: list[Any]) -> list[Any]:
    """The arguments of `func` with narrow operands widened.

    Programs hold constants in bf16 beside inputs in fp32, and labels and indices in int16.
    """
    if func in _CONTRACTIONS:
        floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if len({tensor.dtype for tensor in floats}) > 1:
            widest = max((t.dtype for t in floats), key=lambda dtype: torch.finfo(dtype).bits)
            return [a.to(widest) if isinstance(a, Tensor) else a for a in args]
    place = _INDEX_ARGUMENT.get(func)
    if place is not None and len(args) > place and args[place].dtype in (torch.int16, torch.int32):
        return [*args[:place], args[place].long(), *args[place + 1 :]]
    return args
