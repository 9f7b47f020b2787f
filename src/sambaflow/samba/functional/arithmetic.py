"""Elementwise functions.  `out` is refused, as on an RDU: a static graph has no such argument."""

from typing import Any

import torch

from batucada.errors import OptionError


def _refuse_out(name: str, out: Any) -> None:
    if out is not None:
        raise OptionError(f"samba.{name}: the argument `out` is not supported; use the result")


def abs(input: Any, *, out: Any = None) -> Any:
    _refuse_out("abs", out)
    return torch.abs(input)


def add(input: Any, other: Any, alpha: float = 1, out: Any = None) -> Any:
    """`input + alpha * other`"""
    _refuse_out("add", out)
    return torch.add(input, other, alpha=alpha)


def sub(input: Any, other: Any, alpha: float = 1, out: Any = None) -> Any:
    """`input - alpha * other`"""
    _refuse_out("sub", out)
    return torch.sub(input, other, alpha=alpha)


def mul(input: Any, other: Any, out: Any = None) -> Any:
    _refuse_out("mul", out)
    return torch.mul(input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    _refuse_out("div", out)
    return torch.div(input, other, rounding_mode=rounding_mode)


def log(input: Any, out: Any = None) -> Any:
    _refuse_out("log", out)
    return torch.log(input)
