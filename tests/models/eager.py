"""A training step of a row in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .row import Batch, Row


def first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def eager_step(
    row: Row, wrap: Callable[[nn.Module], Any] = lambda model: model
) -> Callable[[Batch], Tensor]:
    """Trains the row's model, as `wrap` makes it, on a batch; returns the loss."""
    model = row.model()
    optimizer, call = row.optimizer(model), wrap(model)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = first(call(*batch.values()))
        loss.backward()
        optimizer.step()
        return loss

    return step
