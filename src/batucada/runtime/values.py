"""Reading and writing the values of a program between its runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from batucada.errors import InputError
from batucada.pef import Pef, SymbolRecord
from batucada.runtime.device import Device
from batucada.runtime.results import Result, given

if TYPE_CHECKING:
    from batucada.runtime.replicas import Replicas


class Values(Device, ABC):
    """A program's memory, and what its last run left: results, inputs and gradients."""

    def __init__(self, pef: Pef) -> None:
        super().__init__(pef)
        self._results: tuple[Result, ...] = ()
        self._held: list[torch.Tensor] = []  # the last run's inputs
        self._held_names: Sequence[str] = ()
        self._gradients = "none"  # none, stored, recomputable from the last run's values, lost
        self._replicas: Replicas | None = None

    @property
    def replica_count(self) -> int:
        """As how many replicas it runs, 1 before `replicate`: by this, what starts a gradient is
        divided, and so is the gradient until it is reduced.
        """
        return self._replicas.size if self._replicas is not None else 1

    @abstractmethod
    def _keep_gradients(self) -> None:
        """Store those of the last run that are recomputable."""

    # ---- gradients

    def set_output_gradient(self, output_index: int, grad: torch.Tensor | None) -> None:
        """What starts the backward pass at this output from the next run on; None for the
        default.
        """
        outputs = self.manifest.of_role("output")
        if not 0 <= output_index < len(outputs):
            raise InputError(
                f"the program has {len(outputs)} outputs; there is no output {output_index}"
            )
        name = f"{outputs[output_index].name}__grad"
        if name not in self.symbols:
            raise InputError(
                f"output {output_index} ({outputs[output_index].name}) takes no gradient here"
            )
        if self._gradients == "recomputable":
            self._keep_gradients()  # those of the last run began with the old values
        target = self.view(name)
        if grad is None:
            target.fill_((self.symbols[name].default or 0.0) / self.replica_count)
            return
        if not isinstance(grad, torch.Tensor):
            raise InputError(
                f"the gradient of output {output_index} is a {type(grad).__name__}, not a tensor"
            )
        shape = self.symbols[name].torch_shape
        if grad.numel() != math.prod(shape):
            raise InputError(
                f"the gradient of output {output_index} has shape {tuple(grad.shape)};"
                f" the output has {shape}"
            )
        given(self.symbols[name], target).copy_(grad.detach().reshape(shape))
        target.div_(self.replica_count)

    def gradient(self, symbol: str) -> torch.Tensor:
        """A copy of the gradient of a parameter or input in the last run that held BCKWD."""
        name = f"{symbol}__grad"
        if name in self.symbols and self.symbols[name].role == "tangent":
            start = self.view(name) * self.replica_count
            return given(self.symbols[name], start)  # what starts the backward pass there
        if name not in self.symbols or self.symbols[name].role != "gradient":
            raise InputError(f"the program computes no gradient of {symbol!r}")
        if self._gradients == "none":
            raise InputError(f"no run with BCKWD has been made, so {symbol!r} has no gradient yet")
        if self._gradients == "recomputable":
            self._keep_gradients()
        if self._gradients == "lost":
            raise InputError(
                "an input tensor was changed after the run; read gradients before filling it again"
            )
        kept = self.view(name).clone(memory_format=torch.contiguous_format)
        value = given(self.symbols[name], kept)
        mean = self._replicas is not None and self._replicas.reduced
        own = not mean or self.symbols[symbol].role != "parameter"
        return value * self.replica_count if own else value

    # ---- reading and writing symbols

    def read(self, symbol: str) -> torch.Tensor:
        """A copy of the program's value of a symbol."""
        record = self._record(symbol)
        if record.role == "gradient":
            return self.gradient(record.of)
        if record.role == "output":
            found = next((r for r in self._results if r.name == symbol), None)
            if found is None:
                raise InputError(f"the output {symbol!r} has no value before the first run")
            return found.tensor().clone()
        if record.role == "input":
            if not self._held:
                raise InputError(f"the input {symbol!r} has no value before the first run")
            held = self._held[list(self._held_names).index(symbol)]
            return given(record, held.reshape(record.shape).clone())
        return given(record, self.value(symbol).clone(memory_format=torch.contiguous_format))

    def write(self, symbol: str, value: torch.Tensor) -> None:
        """Set a parameter, buffer, state or constant of the program."""
        record = self._record(symbol)
        if record.role not in ("parameter", "buffer", "state", "constant"):
            raise InputError(f"{symbol!r} is an {record.role}; it cannot be written")
        shape = record.torch_shape
        if value.shape != shape or value.is_complex() != record.is_complex:
            raise InputError(
                f"{symbol!r} has shape {shape}, the value {tuple(value.shape)} of {value.dtype}"
            )
        if self._gradients == "recomputable":
            self._keep_gradients()
        self.assign(symbol, value.detach())

    def _record(self, symbol: str) -> SymbolRecord:
        if symbol not in self.symbols:
            raise InputError(f"the program has no symbol {symbol!r}")
        return self.symbols[symbol]
