"""The batches of many steps in one call, stacked along the first dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from batucada.errors import InputError
from batucada.ir.graph import identifier
from batucada.pef import SymbolRecord
from batucada.runtime.inputs import check_names, converted, fitted
from batucada.runtime.results import Result, as_kept, given_dtype, torch_dtype


class Batches:
    """InputError unless every input is there once, with as many steps as the others."""

    def __init__(
        self,
        symbols: Mapping[str, SymbolRecord],
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
    ) -> None:
        inputs = {name: symbol for name, symbol in symbols.items() if symbol.role == "input"}
        self.names = [name if name in inputs else identifier(str(name)) for name in names]
        check_names(self.names, inputs)
        if len(names) != len(tensors):
            raise InputError(f"{len(names)} names are given for {len(tensors)} tensors")
        counts = {len(t) if isinstance(t, torch.Tensor) and t.dim() else -1 for t in tensors}
        if len(counts) != 1 or -1 in counts:
            raise InputError("the first dimension of every input counts the steps; they differ")
        self.steps = counts.pop()
        pairs = zip(self.names, tensors, strict=True)
        self.tensors = [_stacked(inputs[name], tensor) for name, tensor in pairs]

    def at(self, step: int) -> list[torch.Tensor]:
        return [tensor[step] for tensor in self.tensors]

    def outputs(self, symbols: Sequence[SymbolRecord]) -> tuple[torch.Tensor, ...]:
        """Memory for the outputs of every step."""
        return tuple(
            torch.empty((self.steps, *s.torch_shape), dtype=given_dtype(s)) for s in symbols
        )

    def strides(self, results: Sequence[Result], outputs: Sequence[torch.Tensor]) -> dict[str, int]:
        """Bytes from step to step, by slot."""
        found = {n: t[0].nbytes for n, t in zip(self.names, self.tensors, strict=True)}
        return found | {r.name: o[0].nbytes for r, o in zip(results, outputs, strict=True)}


def _stacked(symbol: SymbolRecord, tensor: torch.Tensor) -> torch.Tensor:
    if len(tensor) == 0:
        return tensor
    if tuple(tensor.shape[1:]) != symbol.torch_shape:
        wanted = ", ".join(["steps", *map(str, symbol.torch_shape)])
        raise InputError(
            f"the input {symbol.name!r} has shape {tuple(tensor.shape)}; for many steps ({wanted})"
        )
    fitted(symbol, tensor[0])
    tensor = as_kept(tensor)
    wanted = torch_dtype(symbol)
    return (tensor if tensor.dtype == wanted else converted(symbol, tensor, wanted)).contiguous()
