"""A row of the model table: a model with its loss, its batches and its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
Batch = dict[str, Tensor]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=2**-10, momentum=0.875)


def faster_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """For models that ten steps of `sgd` hardly move."""
    return torch.optim.SGD(model.parameters(), lr=2**-8, momentum=0.875)


def without_momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=2**-10)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """For models without parameters whose gradient is zero but for rounding, such as the bias of
    attention's keys: Adam divides it by its own size.
    """
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


@dataclass(frozen=True)
class Row:
    """`build()` makes the model: called with the tensors of a batch in order, it returns the loss,
    a 0-dimensional tensor, alone or first of several outputs.  `batch()` draws a fresh batch, its
    tensors by the names of the inputs.  Both draw from PyTorch's global generator, which is seeded
    before they are called.  Dropout is 0: its randomness is another than eager's.

    `quick` rows are the cross-section that `make test` runs.  `double` rows are compared in
    float64: deep networks with batch normalisation over few elements amplify rounding so much that
    eager in float32 and eager in float64 are further apart than the tolerance.  Powers of two in
    the optimizer keep its numbers, which are float32, the same in both.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd
    quick: bool = False
    double: bool = False

    def model(self) -> nn.Module:
        """The model in training mode; the same weights on every call."""
        torch.manual_seed(SEED)
        return (self.build().double() if self.double else self.build()).train()

    def batches(self, count: int) -> list[Batch]:
        """The same on every call; the first of them do not depend on `count`."""
        torch.manual_seed(SEED + 1)
        drawn = [self.batch() for _ in range(count)]
        return [{k: _double(t) for k, t in b.items()} for b in drawn] if self.double else drawn


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


class WithLoss(nn.Module):
    """`loss(model(*inputs), target)`, where the target is the last tensor of a batch."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, *tensors: Tensor) -> Tensor:
        *inputs, target = tensors
        return self.loss(self.model(*inputs), target)


def classifier(model: nn.Module) -> nn.Module:
    """Logits [B, classes, ...] and labels [B, ...]: the mean cross-entropy."""
    return WithLoss(model, functional.cross_entropy)


def images(batch: int, size: int, classes: int = 10, channels: int = 3) -> Callable[[], Batch]:
    """images [B, C, size, size] and a label each"""

    def draw() -> Batch:
        return {
            "images": torch.randn(batch, channels, size, size),
            "labels": torch.randint(classes, (batch,)),
        }

    return draw
