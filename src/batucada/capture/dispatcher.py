"""What PyTorch's dispatcher is told: operators of ours, and functions of ours in place of its."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

OURS = torch.library.Library("batucada", "DEF")
_INSTEAD = torch.library.Library("aten", "IMPL")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def instead_of(*operators: str) -> Callable[[_Function], _Function]:
    """Of PyTorch's `operators`, such as `ctc_loss.Tensor`, on tensors without data, on the level of
    autograd: it does not matter who calls them under which name.
    """

    def register(function: _Function) -> _Function:
        for operator in operators:
            _INSTEAD.impl(operator, function, "AutogradMeta")
        return function

    return register
