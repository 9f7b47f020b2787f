"""Names of symbols, as SambaFlow prints them: `logreg__lin_layer__weight`."""

from __future__ import annotations

import re

from torch import nn

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
