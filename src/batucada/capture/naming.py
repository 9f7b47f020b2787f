"""Names of symbols, as SambaFlow prints them: `logreg__lin_layer__weight`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from batucada.capture.leaves import leaves
from batucada.capture.places import functional_here
from batucada.capture.update_rules import RULES
from batucada.errors import InputError
from batucada.ir.graph import identifier

# Names that later steps give: of stages and their partial sums, of optimizer state and
# hyperparameters, of gradients, of the random numbers, and of the next step's inputs in a loop.
_GIVEN = re.compile(
    rf"s\d+(_sums)?|({'|'.join(RULES)})\d+__\w+|\w+__(grad|next)|random__(seed|run)"
)


def input_name(text: str) -> str:
    """The symbol of an input; InputError for a name that the compiler itself gives to others."""
    name = identifier(text)
    if _GIVEN.fullmatch(name):
        raise InputError(f"an input cannot be called {text!r}, a name of the compiler's own")
    return name


def model_name(model: nn.Module) -> str:
    return identifier(type(model).__name__.lower())


def symbol_name(model: nn.Module, path: str) -> str:
    """The model's class name in lower case and the module path, joined by double underscores."""
    return "__".join([model_name(model), *(identifier(part) for part in path.split(".") if part)])


class OutputNames:
    """What the vendor's compiler calls the output that a tensor would be: by the innermost module
    in which it is made, in the model itself by the function.
    """

    def __init__(self) -> None:
        self._modules: list[str] = []
        self._of: dict[int, str] = {}  # by id; the recorder keeps its tensors alive

    @property
    def module(self) -> str:
        """The symbol of the submodule that is called at the moment."""
        return self._modules[-1] if self._modules else ""

    def of(self, tensor: torch.Tensor, otherwise: str) -> str:
        return self._of.get(id(tensor), otherwise)

    def produced(self, operator: str, given: Any, out: Any) -> None:
        """`operator` made `out`, less what it was `given`.  One that others stand for comes after
        them, so its name is the one that stays.
        """
        if not self._modules:
            return
        op = "" if len(self._modules) > 1 else f"__{functional_here() or operator}"
        before = {id(a) for a in leaves(given)}
        for index, tensor in enumerate(leaves(out)):
            if id(tensor) not in before:
                self._of[id(tensor)] = sys.intern(f"{self.module}{op}__outputs__{index}")

    @contextmanager
    def follow(self, model: nn.Module) -> Iterator[None]:
        """Know in which submodule of `model` each tensor is made."""
        paths = {id(m): path for path, m in model.named_modules()}

        def enter(module: nn.Module, _: Any) -> None:
            base = symbol_name(model, paths.get(id(module), ""))
            kind = "" if module is model else f"__{type(module).__name__.lower()}"
            self._modules.append(base + kind)

        def leave(*_: Any) -> None:
            self._modules.pop()

        before = nn.modules.module.register_module_forward_pre_hook(enter)
        after = nn.modules.module.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
