"""Stages that PyTorch runs: operators without a kernel, on views of the program's memory."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from batucada.errors import HostStageError, PefError
from batucada.ir.types import TORCH_NAMES, DType
from batucada.pef import HostRecord, PlaceRecord
from batucada.runtime.results import as_kept


class HostStage:
    """One call of an operator.  PefError when PyTorch does not know it here."""

    def __init__(self, record: HostRecord, table: Any) -> None:
        self._record = record
        self._table = table
        self._operator = _operator(record.target)
        self._form = json.loads(record.form)
        self._args = [_View(place, table) for place in record.args]
        self._results = {int(i): _View(place, table) for i, place in record.results.items()}

    def run(self, _table: int) -> int:
        """Makes the call and stores its results; the code is 0, as of a kernel without checks."""
        args = [view.tensor() for view in self._args]
        try:
            with torch.no_grad():
                results = _call(self._operator, self._form, args)
            for index, view in self._results.items():
                view.tensor().copy_(as_kept(results[index]))
        except Exception as error:
            raise HostStageError(
                f"{self._record.source}: {self._record.target} fails in PyTorch:"
                f" {type(error).__name__}: {error}"
            ) from error
        return 0


class _View:
    """A tensor over a place in memory, made anew when the place has moved."""

    def __init__(self, place: PlaceRecord, table: Any) -> None:
        self._place = place
        self._table = table
        self._address = 0
        self._tensor = torch.empty(0)

    def tensor(self) -> torch.Tensor:
        address = self._table[self._place.slot] + self._place.offset
        if address != self._address:
            self._address = address
            self._tensor = self._at(address)
        return self._tensor

    def _at(self, address: int) -> torch.Tensor:
        place = self._place
        dtype = _torch_dtype(place.dtype)
        if place.bytes == 0:
            return torch.empty(place.shape, dtype=dtype)
        memory = (ctypes.c_char * place.bytes).from_address(address)
        return torch.frombuffer(memory, dtype=dtype).view(place.shape)


def evaluate_call(
    arrays: Sequence[np.ndarray], target: str, form: str, result: int, dtype: DType
) -> np.ndarray:
    """The oracle's value of a result: half precision is held in float32 there."""
    tensors = [torch.from_numpy(np.require(array, requirements=("C", "W"))) for array in arrays]
    value = as_kept(_call(_operator(target), json.loads(form), tensors)[result])
    return (value.float() if dtype in ("bf16", "f16") else value).numpy()


def _call(operator: Callable[..., Any], form: Any, given: Sequence[torch.Tensor]) -> list[Any]:
    """What it returns, and then what it changes: clones of what is given."""
    changes = form.get("changes", [])
    tensors = [t.clone() if i in changes else t for i, t in enumerate(given)]

    def value(item: Any) -> Any:
        if isinstance(item, list):
            return [value(part) for part in item]
        if isinstance(item, dict):
            kind, name = next(iter(item.items()))
            if kind == "complex":
                return torch.view_as_complex(tensors[name])
            if kind == "generator":
                return torch.Generator().manual_seed(int(tensors[name]) % 2**32)
            return tensors[name] if kind == "tensor" else getattr(torch, name)
        return item

    kwargs = {key: value(item) for key, item in form["kwargs"].items()}
    returned = operator(*value(form["args"]), **kwargs)
    return [*tree_leaves(returned), *(tensors[i] for i in changes)]


def _operator(target: str) -> Callable[..., Any]:
    namespace, name, overload = target.split(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError:
        raise PefError(
            f"the program calls the operator {target}, which this PyTorch has not;"
            " import what registers it before loading the PEF"
        ) from None


def _torch_dtype(dtype: DType) -> torch.dtype:
    return getattr(torch, TORCH_NAMES[dtype])
