"""Dropout and its kin while a model is captured.

PyTorch makes most forms of dropout out of simpler operators before the recorder can see them, with
the rate as a constant among them.  Here they are made so that the rate stays a run-time value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_ALPHA = 1.7580993408473766  # of Klambauer et al., Self-Normalizing Neural Networks (2017)

Rate = Callable[[float], torch.Tensor]
"""A drop rate as a tensor without data, f32[]."""


@contextmanager
def run_time_rates(rate: Rate) -> Iterator[None]:
    """Operators on tensors without data, called from Python or C++, ask `rate` for their rates."""
    asked = [rate]  # empty in the end: PyTorch keeps the functions, and they would keep the capture
    forms = {
        "dropout": _dropout,
        "feature_dropout": _feature_dropout,
        "alpha_dropout": lambda x, p, train: _alpha(x, x.shape, p, train, asked[0]),
        "feature_alpha_dropout": lambda x, p, train: _alpha(x, _features(x), p, train, asked[0]),
        "rrelu": _rrelu,
    }
    library = torch.library.Library("aten", "IMPL")
    for name, form in forms.items():
        library.impl(name, form, "AutogradMeta")
        library.impl(f"{name}_", _in_place(form), "AutogradMeta")
    try:
        yield
    finally:
        library._destroy()
        asked.clear()


def _in_place(form: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def change(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = form(x, *args, **kwargs)
        return x if made is x else x.copy_(made)  # else autograd would see a change

    return change


def _draws(x: torch.Tensor, p: float, train: bool) -> bool:
    """A rate of 0 at compilation is no dropout, as in SambaFlow."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return train and p > 0 and x.numel() > 0


def _dropout(x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    return torch.native_dropout(x, p, True)[0] if _draws(x, p, train) else x


def _features(x: torch.Tensor) -> list[int]:
    """One number for each sample and channel."""
    if x.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return [*x.shape[:2], *[1] * (x.dim() - 2)]


def _feature_dropout(x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    if not _draws(x, p, train):
        return x
    return x * torch.native_dropout(x.new_ones(_features(x)), p, True)[0]


def _alpha(x: torch.Tensor, shape: Any, p: float, train: bool, rate: Rate) -> torch.Tensor:
    """a x + b where kept, else b - a alpha, with a = ((1 + alpha^2 p) (1 - p))^-1/2 and
    b = a alpha p
    """
    if not _draws(x, p, train):
        return x
    dropped = rate(p)
    a = ((_ALPHA * _ALPHA * dropped + 1) * (1 - dropped)) ** -0.5
    a = torch.where(dropped < 1, a, 0.0)
    keep = torch.rand(list(shape), device=x.device) >= dropped
    b = torch.where(keep, a * _ALPHA * dropped, a * _ALPHA * (dropped - 1))
    return (x * torch.where(keep, a, 0.0) + b).to(x.dtype)


def _rrelu(
    x: torch.Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    generator: Any = None,
) -> torch.Tensor:  # fmt: skip
    if not training:
        return torch.where(x > 0, x, x * ((lower + upper) / 2))
    numbers = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    slope = numbers * (upper - lower) + lower
    return torch.where(x > 0, x, x * slope)
