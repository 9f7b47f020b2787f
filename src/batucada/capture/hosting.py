"""An operator that has no kernel, written down as a call that PyTorch makes at run time."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import torch

from batucada.capture.dtypes import type_of
from batucada.capture.leaves import leaves, mapped
from batucada.capture.operator import is_written, without_data
from batucada.errors import CaptureError
from batucada.ir.graph import Node
from batucada.ops.distributions import OWN_GENERATOR
from batucada.ops.host import host_call
from batucada.ops.random import Generator

WHERE_TENSORS_ARE = {"layout", "device", "pin_memory", "memory_format", "non_blocking"}
"""Options that mean nothing in a compiled program."""


def why_not_on_host(func: Any, args: Any, kwargs: dict[str, Any]) -> str | None:
    """None where its results depend on its arguments alone, a generator among them."""
    if not draws(func):
        return None
    if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
        return OWN_GENERATOR
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return None
    return "its random numbers are PyTorch's own; give them as an input"


def draws(func: Any) -> bool:
    """Random numbers."""
    return torch.Tag.nondeterministic_seeded in func.tags


def results_without_data(func: Any, args: Any, kwargs: dict[str, Any], where: str) -> Any:
    """PyTorch's own; of an operator that gives no shape without data they are found by running it
    on some numbers, from 0 to 1: others would have no square root, or be no place.
    """
    with suppress(NotImplementedError):  # what PyTorch raises for such an operator
        return func(*mapped(without_data, args), **mapped(without_data, kwargs))
    numbers = torch.Generator().manual_seed(0)

    def some(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if not value.dtype.is_floating_point:
            return torch.zeros(value.shape, dtype=value.dtype)
        return torch.rand(value.shape, generator=numbers, dtype=value.dtype)

    with suppress(RuntimeError):
        results = func(*mapped(some, args), **mapped(some, kwargs))
        tensors = [leaf for leaf in leaves(results) if isinstance(leaf, torch.Tensor)]
        if all(tensor.layout == torch.strided for tensor in tensors):
            return mapped(without_data, results)
    raise CaptureError(
        f"{where}: {func} has no kernel, and PyTorch cannot tell what its result will be;"
        " compute it on the host"
    )


def host_nodes(
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    out: Any,
    node_of: Any,
    generator: Generator,
    where: str,
) -> list[tuple[torch.Tensor, Node]]:
    """Each tensor among the results `out` (tensors without data), and each argument that is
    changed, with the node that makes it.  What an operator draws is one more that the program's
    `generator` gives.
    """
    changed = changed_tensors(func, args, kwargs)
    written = _Form(node_of, f"{where}: {func}")
    kept = {k: v for k, v in kwargs.items() if k not in WHERE_TENSORS_ARE}
    text = {
        "args": written.form(list(args)),
        "kwargs": {k: written.form(v) for k, v in kept.items()},
    }
    if draws(func):
        text["kwargs"]["generator"] = {"generator": len(written.tensors)}
        written.tensors.append(generator.stream()[0])
    if changed:
        text["changes"] = [written.number[id(tensor)] for tensor in changed]
    call = tuple(written.tensors), str(func), json.dumps(text)
    flops = _flops(func, args, kwargs, out)
    found = []
    for index, result in enumerate([*leaves(out), *changed]):
        if isinstance(result, torch.Tensor):
            node = host_call(*call, index, type_of(result), flops if not found else 0)
            found.append((result, node))
    return found


class _Form:
    """Arguments as JSON holds them, see `ops.host`, and the tensors among them."""

    def __init__(self, node_of: Any, call: str) -> None:
        self._node_of, self._call = node_of, call
        self.tensors: list[Node] = []
        self.number: dict[int, int] = {}  # of each tensor by its id

    def form(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            self.number[id(value)] = len(self.tensors)
            self.tensors.append(self._node_of(value))
            return {"complex" if value.is_complex() else "tensor": self.number[id(value)]}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, list | tuple):
            return [self.form(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        kind = type(value).__name__
        raise CaptureError(f"{self._call}: an argument of type {kind} cannot be kept")


def changed_tensors(func: Any, args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Those among its arguments that an operator changes."""
    found = []
    for position, argument in enumerate(func._schema.arguments):
        if is_written(argument):
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]
    return found


def _flops(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """What PyTorch counts for the operator, else one a result's element."""
    from torch.utils.flop_counter import flop_registry  # half a second's import

    count = flop_registry.get(func.overloadpacket)
    if count is not None:
        return int(count(*args, **kwargs, out_val=out))
    return sum(t.numel() for t in leaves(out) if isinstance(t, torch.Tensor))
