"""`samba.randn`, `samba.zeros`, …: torch's functions with a name for the result."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from sambaflow.samba.sambatensor import SambaTensor, from_torch_tensor, unwrap


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers, and the traced program's."""
    from sambaflow.samba.session import session

    python_random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    session.seed(seed)


def _creator(function: Callable[..., torch.Tensor]) -> Callable[..., SambaTensor]:
    def create(
        *args: Any,
        name: str = "",
        batch_dim: int | None = None,
        named_dims: Iterable[str | None] | None = None,
        sized_dims: Iterable[str | None] | None = None,
        region_name: str | None = None,
        **kwargs: Any,
    ) -> SambaTensor:
        made = from_torch_tensor(function(*unwrap(args), **unwrap(kwargs)), name, batch_dim)
        made.named_dims, made.sized_dims = named_dims, sized_dims
        if region_name:
            made.sn_region_name = region_name
        return made

    create.__name__ = function.__name__
    create.__doc__ = f"`torch.{function.__name__}`; the result is a SambaTensor called `name`."
    return create


randn = _creator(torch.randn)
rand = _creator(torch.rand)
randint = _creator(torch.randint)
normal = _creator(torch.normal)
randn_like = _creator(torch.randn_like)
rand_like = _creator(torch.rand_like)
zeros = _creator(torch.zeros)
ones = _creator(torch.ones)
zeros_like = _creator(torch.zeros_like)
ones_like = _creator(torch.ones_like)
empty = _creator(torch.empty)
full = _creator(torch.full)
arange = _creator(torch.arange)
tensor = _creator(torch.tensor)
