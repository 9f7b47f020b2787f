"""`samba.functional.stir`: lambdas over the elements of tensors, written in torch's functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batucada.errors import OptionError


@dataclass(frozen=True)
class LambdaAttributes:
    """The first argument of the lambda of `sn_zipmapreduce`: the domain it maps over."""

    shape: torch.Size


def sn_zipmapreduce(
    func: Callable[..., Any],
    inputs: Sequence[Any],
    reduce_func: Callable[..., Any] | None = None,
    reduce_dim: int | None = None,
    stoc_accum: bool = False,
) -> Any:
    """`func(attrs, *inputs)` over the zipped elements, then `reduce_func(result, reduce_dim)`.

    `reduce_func` is a torch function such as `torch.sum` or `torch.amax`.
    """
    shape = torch.broadcast_shapes(*(tuple(tensor.shape) for tensor in inputs))
    mapped = func(LambdaAttributes(torch.Size(shape)), *inputs)
    if reduce_func is None:
        return mapped
    if not callable(reduce_func):
        raise OptionError(f"reduce_func is {reduce_func!r}; expected a function such as torch.sum")
    return reduce_func(mapped, reduce_dim)


def sn_imm(input: Any, dtype: Any) -> torch.Tensor:
    """A constant inside the lambda; `dtype` is torch's or an SNType."""
    return torch.tensor(input, dtype=getattr(dtype, "to_torch_reference_type", dtype))


def sn_iteridx(attrs: LambdaAttributes, dim: int, dtype: Any = None) -> torch.Tensor:
    """The index of each element along `dim`, of a shape that broadcasts over the domain."""
    shape = [1] * len(attrs.shape)
    shape[dim] = attrs.shape[dim]
    dtype = getattr(dtype, "to_torch_reference_type", dtype)
    return torch.arange(attrs.shape[dim], dtype=dtype).reshape(shape)


def sn_select(cond: Any, t: Any, f: Any) -> Any:
    """`t` where `cond` holds, else `f`."""
    return torch.where(cond, t, f)


def sn_fma(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`"""
    return a * b + c
