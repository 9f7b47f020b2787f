"""What an operator is given, its memory and its `out=`, as the compiler takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batucada.capture.folding import positions
from batucada.capture.leaves import leaves
from batucada.capture.operator import Operator, form_without_outs

_PRODUCTS = frozenset(
    {"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm", "aten.convolution", "aten.mv"}
)
_LABELLED = {"aten.embedding", "aten.embedding_dense_backward"} | frozenset(
    f"aten.nll_loss{rank}_{way}" for rank in ("", "2d") for way in ("forward", "backward")
)


def adjusted(
    operator: Operator, args: Any, kwargs: dict[str, Any], run: Callable[..., Any], value: Any
) -> tuple[Any, dict[str, Any]]:
    """Everything is made without data; operands of mixed dtypes are cast, as SambaFlow does; masks
    whose `value(mask)` is known are places, unless one number is written to all of them.
    `run(func, *args)` calls so that it is recorded.
    """
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("meta")}
    if operator.packet in _PRODUCTS:
        floats = [a.dtype for a in args if isinstance(a, torch.Tensor)]
        if len(set(floats)) > 1 and not any(dtype.is_complex for dtype in floats):
            wide = torch.float64 if torch.float64 in floats else torch.float32
            args = tuple(
                run(torch.Tensor.to, a, wide) if isinstance(a, torch.Tensor) else a for a in args
            )
    elif operator.packet in _LABELLED:
        args = tuple(run(torch.Tensor.long, a) if _is_small_integer(a) else a for a in args)
    elif operator.base.endswith("index_put") and args[2].numel() != 1:
        args = (args[0], positions(args[1], value), *args[2:])
    return args, kwargs


def _is_small_integer(value: Any) -> bool:
    """Class labels of any integer width count as int64."""
    small = (torch.int8, torch.int16, torch.int32, torch.uint8)
    return isinstance(value, torch.Tensor) and value.dtype in small


def in_memory_order(args: Any, kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
    """`empty_strided`: a view, with dimensions in another order, of a tensor that is contiguous,
    so that `as_strided` finds elements where they are in PyTorch; NotImplemented where it would be
    the same, or has gaps.
    """
    size, stride = args[-2:]
    order = sorted(range(len(size)), key=lambda dim: stride[dim], reverse=True)
    memory = torch.empty([size[dim] for dim in order], device="meta")
    dense = all(memory.stride(i) == stride[dim] for i, dim in enumerate(order))
    if order == sorted(order) or not dense:
        return NotImplemented
    if isinstance(args[0], torch.Tensor):
        memory = run(torch.Tensor.new_empty, args[0], memory.shape, **kwargs)
    else:
        memory = run(torch.empty, memory.shape, **kwargs)
    return run(torch.permute, memory, [order.index(dim) for dim in range(len(order))])


def written_to_outs(
    operator: Operator, args: Any, kwargs: dict[str, Any], run: Callable[..., Any]
) -> Any:
    """An operator with `out=`, by the one that returns new tensors; NotImplemented where there is
    none.
    """
    new = form_without_outs(operator.func)
    if new is None:
        return NotImplemented
    outs = tuple(kwargs[name] for name in operator.outs)
    others = {name: value for name, value in kwargs.items() if name not in operator.outs}
    for out, result in zip(outs, leaves(run(new, *args, **others)), strict=True):
        if out.shape != result.shape:
            run(torch.Tensor.resize_, out, result.shape)
        run(torch.Tensor.copy_, out, result)
    return outs[0] if len(outs) == 1 else outs
