"""A model is after its capture what it was before, whatever its forward keeps for later calls."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_CONTAINERS = (list, dict, OrderedDict, defaultdict, set)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Takes back what is done meanwhile to the attributes of `model`'s modules, their parameters
    and buffers among them, and to lists, dicts and sets that are attributes.
    """
    attributes = [vars(module) for module in model.modules()]
    values = [value for table in attributes for value in table.values()]
    kept = [*attributes, *(value for value in values if type(value) in _CONTAINERS)]
    before = [copy.copy(container) for container in kept]
    try:
        yield
    finally:
        for container, contents in zip(kept, before, strict=True):
            _fill(container, contents)


def _fill(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(contents)
    else:
        container.update(contents)
