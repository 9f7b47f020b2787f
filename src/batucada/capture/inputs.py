"""The tensors that a model is called with, each under a name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import keystr, tree_map_with_path

from batucada.errors import InputError
from batucada.ir.graph import identifier


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor among a model's inputs, under the name by which it is given at run time."""

    name: str
    tensor: torch.Tensor


def name_inputs(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of `model`'s forward, with a NamedTensor for every tensor.

    `args` is a tensor, a sequence in the order of forward's arguments, in which None and plain
    values keep their places, or a mapping by argument.  A tensor without a name gets that of its
    argument, and in a list or dict its place there as well: `states_0`.
    """
    if isinstance(args, Mapping):
        args, kwargs = (), {**args, **(kwargs or {})}
    elif isinstance(args, NamedTensor | torch.Tensor):
        args = (args,)
    elif not isinstance(args, Sequence) or isinstance(args, str):
        raise InputError(
            f"inputs are a tensor, a sequence or a dict of them, not {type(args).__name__}"
        )
    names = _argument_names(model, len(args))
    return (
        tuple(named_leaves(value, name) for value, name in zip(args, names, strict=True)),
        {key: named_leaves(value, key) for key, value in (kwargs or {}).items()},
    )


def _argument_names(model: nn.Module, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind in kinds][:count]
    return [*names, *(f"input_{index}" for index in range(len(names), count))]


def named_leaves(value: Any, default: str) -> Any:
    """`value` with a NamedTensor for every tensor in it: `default`, and its place in lists and
    dicts.
    """

    def leaf(path: Any, found: Any) -> Any:
        if not isinstance(found, torch.Tensor):
            return found
        place = identifier(keystr(path)).strip("_")
        return NamedTensor(f"{default}_{place}" if place else default, found)

    return tree_map_with_path(leaf, value)
