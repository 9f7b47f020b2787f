"""What a program holds from step to step: parameters, buffers, optimizer state, hyperparameters."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from batucada.errors import InputError
from batucada.ops.random import RUN, SEED
from batucada.pef import Pef, PlaceRecord, SymbolRecord
from batucada.runtime.inputs import number
from batucada.runtime.momentum import HostMomentum
from batucada.runtime.results import aligned_block, as_kept, tensor_at, torch_dtype


class Device:
    """The program's own memory, and the table of addresses that its native code is given."""

    def __init__(self, pef: Pef) -> None:
        self.pef = pef
        self.manifest = pef.manifest
        self.symbols: dict[str, SymbolRecord] = dict(pef.manifest.symbol_by_name)
        self._table = (ctypes.c_int64 * len(pef.manifest.slots))()
        self._blocks: dict[int, np.ndarray] = {}
        self._views: dict[str, torch.Tensor] = {}
        self._allocate()
        self._set_defaults(pef)
        self._momentum = HostMomentum(self.manifest, self.view)
        self._momentum_on_host = False
        self.seed(torch.initial_seed())

    def seed(self, seed: int) -> None:
        """From the next run on the random operators draw what they draw when the program is loaded
        after `torch.manual_seed(seed)`.
        """
        if SEED in self.symbols:
            self.view(SEED).fill_((seed + 2**63) % 2**64 - 2**63)
            self.view(RUN).zero_()

    def _allocate(self) -> None:
        names = [record.name for record in self.manifest.slots]
        self._gradients_slot = names.index("gradients")  # before an input of this name
        for slot in (names.index("arena"), names.index("memory"), self._gradients_slot):
            block, address = aligned_block(max(self.manifest.slots[slot].bytes, 1), zero=True)
            self._blocks[slot] = block
            self._table[slot] = address

    def _set_defaults(self, pef: Pef) -> None:
        self.hyperparameters: dict[str, float] = {}
        self._scalars: dict[str, list[ctypes.c_float]] = {}
        self._given_hyper: dict[str, float] = {}  # the last ones, which need not be set again
        for symbol in self.manifest.of_role("tangent"):
            self.view(symbol.name).fill_(symbol.default or 0.0)
        rates = dict(self.manifest.hyperparameters)
        for optimizer in self.manifest.optimizers:
            region = optimizer.options["region"]
            for group in optimizer.options["groups"]:
                for key, name in group["hyper"].items():
                    self._bind_hyper(name, (key, f"{region}{key}") if region else (key,))
                    del rates[name]
        self.dropout_rates = tuple(rates)
        for name in rates:
            self._bind_hyper(name, ("p", name))
        for name, value in self._constants(pef).items():
            self.view(name).copy_(value)

    def _bind_hyper(self, name: str, keys: tuple[str, ...]) -> None:
        """`keys` are what a run may call it."""
        default = self.manifest.hyperparameters[name]
        symbol = self.symbols[name]
        scalar = ctypes.c_float.from_address(self._table[symbol.slot] + symbol.offset)
        scalar.value = default
        for known in keys:
            self._scalars.setdefault(known, []).append(scalar)
            self.hyperparameters.setdefault(known, default)

    @staticmethod
    def _constants(pef: Pef) -> dict[str, torch.Tensor]:
        member = "constants.safetensors"
        if member not in pef.names:
            return {}
        from safetensors.torch import load as load_tensors  # only programs with constants need it

        return load_tensors(pef.member(member))

    @property
    def gradients(self) -> np.ndarray:
        """The memory of all gradients, in bytes.  When it is set it moves, with what it holds."""
        return self._blocks[self._gradients_slot]

    @gradients.setter
    def gradients(self, block: np.ndarray) -> None:
        slot = self._gradients_slot
        block[:] = self._blocks[slot]
        self._blocks[slot] = block
        self._table[slot] = block.ctypes.data
        self._views = {n: view for n, view in self._views.items() if self.symbols[n].slot != slot}

    def place(self, record: PlaceRecord) -> torch.Tensor:
        """The program's own memory at a place."""
        block = self._blocks[record.slot]
        return tensor_at(block, record.offset, torch_dtype(record), record.shape)

    def value(self, name: str) -> torch.Tensor:
        """What a symbol holds, in the shape that PyTorch gives it, of complex numbers the parts: a
        view where that can be.
        """
        symbol = self.symbols[name]
        if not symbol.panel:
            return self.view(name)
        return self._panels(symbol).flatten(-2).permute(_inverse(symbol))

    def assign(self, name: str, value: torch.Tensor) -> None:
        symbol, value = self.symbols[name], as_kept(value)
        if not symbol.panel:
            self.view(name).copy_(value)
            return
        columns = value.permute(_order(symbol))
        self._panels(symbol).copy_(columns.unflatten(-1, (-1, symbol.panel)))

    def _panels(self, symbol: SymbolRecord) -> torch.Tensor:
        """The memory of a tensor that is stored in panels, its last dimension split by them."""
        *rest, columns = _stored_shape(symbol)
        panels = (columns // symbol.panel, *rest, symbol.panel)
        memory = self.place(PlaceRecord(symbol.dtype, panels, symbol.slot, symbol.offset))
        return memory.movedim(0, -2)

    def view(self, name: str) -> torch.Tensor:
        """The program's own memory of a symbol, in the shape that PyTorch gives it; not of one that
        is stored in panels.
        """
        if name not in self._views:
            symbol = self.symbols[name]
            assert not symbol.panel
            stored = _stored_shape(symbol)
            tensor = self.place(PlaceRecord(symbol.dtype, stored, symbol.slot, symbol.offset))
            self._views[name] = tensor.permute(_inverse(symbol)) if symbol.storage else tensor
        return self._views[name]

    def _numbers(self, hyper: Mapping[str, float]) -> dict[str, float]:
        """Names that the program does not use are legal: programs pass what some models need."""
        for name in hyper.keys() - self._scalars.keys():
            self._refuse_compiled_in(name, hyper[name])
        return {name: number(name, v) for name, v in hyper.items() if name in self._scalars}

    def _refuse_compiled_in(self, name: str, value: Any) -> None:
        """InputError for an option of an optimizer that has another value in the program."""
        given: dict[str, Any] = {name: value}
        if name == "betas":
            given = {"beta1": value[0], "beta2": value[1]}
        for optimizer in self.manifest.optimizers:
            for group in optimizer.options["groups"]:
                known = {**group["options"], "max_grad_norm": optimizer.options["max_grad_norm"]}
                for key in given.keys() & known.keys():
                    if known[key] != given[key]:
                        raise InputError(
                            f"{key} is {given[key]}, and {known[key]} is compiled into the program;"
                            f" compile it again with the other value, or leave it out"
                        )

    def hyperparameter_values(self) -> dict[str, float]:
        """The value of every hyperparameter symbol, for `set_hyperparameter_values`."""
        return {name: float(self.view(name)) for name in self.manifest.hyperparameters}

    def set_hyperparameter_values(self, values: Mapping[str, float]) -> None:
        """As if these had been given to the last run; names of other programs are left out."""
        for name in values.keys() & self.manifest.hyperparameters.keys():
            self.view(name).fill_(values[name])
        for key, scalars in self._scalars.items():
            self.hyperparameters[key] = scalars[0].value
        self._given_hyper = {}
        self._momentum_on_host = self._momentum.active

    def _set_hyper(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            for scalar in self._scalars[name]:
                scalar.value = value
        self.hyperparameters.update(numbers)
        if any(name.endswith("momentum") for name in numbers):
            self._momentum_on_host = self._momentum.active


def _order(symbol: SymbolRecord) -> tuple[int, ...]:
    """The dimensions of PyTorch's tensor as they are stored, outermost first."""
    return symbol.storage or tuple(range(len(symbol.shape)))


def _inverse(symbol: SymbolRecord) -> list[int]:
    order = _order(symbol)
    return [order.index(d) for d in range(len(order))]


def _stored_shape(symbol: SymbolRecord) -> tuple[int, ...]:
    return tuple(symbol.shape[d] for d in _order(symbol))
