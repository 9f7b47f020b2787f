"""What a trace sees and what it leaves: the tree of inputs, and tensors that live on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

import batucada
from batucada.errors import OptionError
from sambaflow.samba import device
from sambaflow.samba.sambatensor import SambaTensor


class TracedTensor(SambaTensor):
    """An output or other symbol of the traced program.  Its value is the device's current one."""

    __slots__ = ("_dtype", "_shape")

    def __init__(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.name = name
        self.batch_dim = None
        self._shape = torch.Size(shape)
        self._dtype = dtype

    @classmethod
    def of_symbol(cls, record: Any) -> TracedTensor:
        dtype = TORCH_DTYPES[record.dtype]
        is_complex = record.is_complex
        return cls(record.name, record.torch_shape, dtype.to_complex() if is_complex else dtype)

    @property
    def _tensor(self) -> torch.Tensor:  # type: ignore[override]
        return device.current().program.read(self.name)

    @property
    def shape(self) -> torch.Size:
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def has_data(self) -> bool:
        return True

    def rdu(self) -> TracedTensor:
        return self

    def __repr__(self) -> str:
        return f"TracedTensor(name={self.name!r}, shape={tuple(self._shape)}, dtype={self._dtype})"

    def __reduce__(self) -> tuple:
        return TracedTensor, (self.name, self._shape, self._dtype)


TORCH_DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16,
    "i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8,
    "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip


def optimizer_list(optimizers: Any) -> tuple[Optimizer, ...]:
    """Nothing, one optimizer or several, as a tuple."""
    if optimizers is None:
        return ()
    listed = (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)
    for optimizer in listed:
        if not isinstance(optimizer, Optimizer):
            raise OptionError(f"not an optimizer: {type(optimizer).__name__}")
    return listed


def input_tree(model: nn.Module, inputs: Any) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments of forward, with a NamedTensor for every tensor.

    A tensor without a name gets that of forward's argument.
    """
    if isinstance(inputs, Mapping):
        inputs = dict(inputs)
    return batucada.name_inputs(model, tree_map(_named, inputs))


def named_leaves(value: Any, default: str) -> Any:
    """`value` with a NamedTensor for every tensor in it, called `default` where it has no name."""
    return batucada.named_leaves(tree_map(_named, value), default)


def _named(value: Any) -> Any:
    if not isinstance(value, SambaTensor):
        return value
    return batucada.NamedTensor(value.name, value._tensor) if value.name else value._tensor
