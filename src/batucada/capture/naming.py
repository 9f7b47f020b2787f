"""Names of symbols, as SambaFlow prints them: `logreg__lin_layer__weight`."""

from __future__ import annotations

from torch import nn

from batucada.ir.graph import identifier


def model_name(model: nn.Module) -> str:
    return identifier(type(model).__name__.lower())


def symbol_name(model: nn.Module, path: str) -> str:
    """The model's class name in lower case and the module path, joined by double underscores."""
    return "__".join([model_name(model), *(identifier(part) for part in path.split(".") if part)])
