"""`torch.utils.checkpoint` while a model is captured: what the backward pass computes again draws
the random numbers of the forward pass again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils import checkpoint

from batucada.ops.random import Generator


class _Reentrant:
    """The older form calls the backward pass within the backward pass; its results are those of
    the other one.
    """

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return checkpoint.checkpoint(
            function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state
        )


@contextmanager
def draws_again(generator: Generator) -> Iterator[None]:
    """PyTorch keeps the state of its generator and goes back to it: here that of `generator`."""
    with (
        patch.object(torch, "get_rng_state", lambda: generator.position),
        patch.object(torch, "set_rng_state", generator.go_to),
        patch.object(checkpoint, "CheckpointFunction", _Reentrant),
    ):
        yield
