"""An operator that has no kernel, written down as a call that PyTorch makes at run time."""

from __future__ import annotations

import json
from typing import Any

import torch

from batucada.capture.dtypes import type_of
from batucada.capture.leaves import leaves
from batucada.errors import CaptureError
from batucada.ir.graph import Node
from batucada.ops.host import host_call

WHERE_TENSORS_ARE = {"layout", "device", "pin_memory", "memory_format", "non_blocking"}
"""Options that mean nothing in a compiled program."""


def can_run_on_host(func: Any) -> bool:
    """Its results depend on its arguments alone, and it writes to none of them."""
    seeded = torch.Tag.nondeterministic_seeded in func.tags
    return not seeded and not func._schema.is_mutable


def host_nodes(
    func: Any, args: Any, kwargs: dict[str, Any], out: Any, node_of: Any
) -> list[tuple[torch.Tensor, Node]]:
    """Each tensor among the results `out` (tensors without data) with the node that makes it."""
    tensors: list[Node] = []

    def form(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(node_of(value))
            return {"complex" if value.is_complex() else "tensor": len(tensors) - 1}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, list | tuple):
            return [form(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise CaptureError(f"{func}: an argument of type {type(value).__name__} cannot be kept")

    kept = {k: v for k, v in kwargs.items() if k not in WHERE_TENSORS_ARE}
    text = json.dumps({"args": form(list(args)), "kwargs": {k: form(v) for k, v in kept.items()}})
    flops = _flops(func, args, kwargs, out)
    found = []
    for index, result in enumerate(leaves(out)):
        if isinstance(result, torch.Tensor):
            node = host_call(
                tuple(tensors), str(func), text, index, type_of(result), flops if not found else 0
            )
            found.append((result, node))
    return found


def _flops(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """What PyTorch counts for the operator, else one a result's element."""
    from torch.utils.flop_counter import flop_registry  # half a second's import

    count = flop_registry.get(func.overloadpacket)
    if count is not None:
        return int(count(*args, **kwargs, out_val=out))
    return sum(t.numel() for t in leaves(out) if isinstance(t, torch.Tensor))
