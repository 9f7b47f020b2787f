"""What operators take and return: values in lists and tuples, some within others.

PyTorch's own `pytree` knows many more containers and takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """`value`, which may be a dict of keyword arguments, with `function` of each leaf."""
    if isinstance(value, list | tuple):
        return type(value)([mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {key: mapped(function, item) for key, item in value.items()}
    return function(value)


def leaves(value: Any) -> list[Any]:
    """In order."""
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]
