"""`samba.lazy_param`: models built without their weights.  Here weights are made at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch


def lazy_param(quantized: bool = False) -> contextlib.AbstractContextManager[None]:
    """Surrounds the construction of a model, which is then an ordinary one."""
    return contextlib.nullcontext()


class RNGProvider:
    """Random numbers for a materializer, from torch's generator."""

    def normal(
        self, mean: float, std: float, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=dtype).normal_(mean, std)

    def uniform(
        self, low: float, high: float, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=dtype).uniform_(low, high)


class RNGProviderFactory:
    """`build_provider()` returns a function that returns the provider."""

    def build_provider(self) -> Callable[[], RNGProvider]:
        return RNGProvider
