"""Checks what a run is given against what the program was compiled for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from batucada.errors import IndexRangeError, InputError
from batucada.ir.graph import identifier
from batucada.pef import SymbolRecord
from batucada.runtime.results import as_kept, given_dtype, torch_dtype


class Batch(NamedTuple):
    """The inputs of a run: where each is in the address table, and its version then."""

    names: Sequence[str]
    slots: Sequence[int]
    tensors: Sequence[torch.Tensor]
    versions: Sequence[int]

    def check_same(self, before: Batch) -> None:
        """InputError unless a BCKWD that has this batch is of the FWD that had that `before`."""
        of_forward = dict(
            zip(before.slots, zip(before.tensors, before.versions, strict=True), strict=True)
        )
        for name, slot, tensor in zip(self.names, self.slots, self.tensors, strict=True):
            then, version = of_forward[slot]
            if then._version != version or not _same_bytes(then, tensor):
                raise InputError(
                    f"BCKWD is given another {name!r} than FWD had; give both the same batch,"
                    " or run FWD again"
                )


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.data_ptr() == other.data_ptr():
        return True
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def check_names(names: Sequence[str], expected: Mapping[str, Any]) -> None:
    """InputError unless every input is given once."""
    names = [name if name in expected else identifier(str(name)) for name in names]
    for name in names:
        if name not in expected:
            known = ", ".join(expected) or "none"
            raise InputError(f"the program has no input {name!r}; its inputs are: {known}")
        if list(names).count(name) > 1:
            raise InputError(f"the input {name!r} is given twice")
    missing = [name for name in expected if name not in names]
    if missing:
        raise InputError(
            f"the input {missing[0]!r} is missing; given: {', '.join(names) or 'none'}"
        )


def fitted(symbol: SymbolRecord, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as the kernels read it: contiguous, of the compiled dtype.

    Another shape of as many elements is taken, an integer of another width converted; InputError
    otherwise.
    """
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"the input {symbol.name!r} is a {type(tensor).__name__}, not a tensor")
    if tensor.is_complex() != symbol.is_complex:
        raise InputError(
            f"the input {symbol.name!r} is {tensor.dtype}; compiled for {given_dtype(symbol)}"
        )
    wanted = torch_dtype(symbol)
    if tensor.is_meta:
        raise InputError(f"the input {symbol.name!r} is a shape without data; give it a value")
    if tensor.device.type != "cpu":
        raise InputError(f"the input {symbol.name!r} is on {tensor.device}; move it to the CPU")
    count = math.prod(symbol.torch_shape)
    if tensor.numel() != count:
        raise InputError(
            f"the input {symbol.name!r} has shape {tuple(tensor.shape)}"
            f" ({tensor.numel()} elements);"
            f" compiled for {symbol.torch_shape} ({count} elements)."
            " Compile again for another batch size"
        )
    tensor = as_kept(tensor)
    if tensor.dtype != wanted:
        tensor = converted(symbol, tensor, wanted)
    return tensor.detach().contiguous()


def converted(symbol: SymbolRecord, tensor: torch.Tensor, wanted: torch.dtype) -> torch.Tensor:
    integers = not (tensor.is_floating_point() or wanted.is_floating_point)
    if not integers or torch.bool in (tensor.dtype, wanted):
        raise InputError(
            f"the input {symbol.name!r} is {tensor.dtype}; compiled for {wanted}."
            f" Convert it: tensor.to({wanted})"
        )
    result = tensor.to(wanted)
    if not torch.equal(result.to(tensor.dtype), tensor):
        raise InputError(f"the input {symbol.name!r} has values that {wanted} cannot hold")
    return result


def tracked(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or its copy outside inference mode: one whose changes PyTorch counts."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def number(name: str, value: Any) -> float:
    """A hyperparameter's value; InputError for what is no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"the hyperparameter {name!r} is {value!r}, not a finite number")
    return found


def range_error(check: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> IndexRangeError:
    """The error for a failed check of the program, with the value that caused it."""
    size, ignore, low = check["size"], check["ignore"], check["low"]
    where = f" ({check['source']})" if check["source"] else ""
    found = ""
    tensor = tensors.get(check["input"])
    if tensor is not None:
        bad = tensor[(tensor != ignore) & ((tensor < low) | (tensor >= size))]
        if bad.numel():
            found = f" {int(bad.reshape(-1)[0])} in the input {check['input']!r}"
    return IndexRangeError(
        f"index or class label{found} is out of range:"
        f" expected {low} to {size - 1}{where}; nothing was updated"
    )
