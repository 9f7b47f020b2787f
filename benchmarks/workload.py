"""What is measured: an FFN 784-32-32-10 with one ReLU, cross-entropy, plain SGD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FEATURES, HIDDEN, CLASSES = 784, 32, 10
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4


@dataclass(frozen=True)
class Case:
    """A training step (forward, loss, backward, update) or a forward pass of `batch` samples."""

    training: bool
    batch: int

    @property
    def name(self) -> str:
        return f"{'train' if self.training else 'infer'}-{self.batch}"


CASES = {
    case.name: case
    for case in (
        *(Case(True, batch) for batch in (1, 16, 128, 1024)),
        *(Case(False, batch) for batch in (1, 128)),
    )
}


class Network(nn.Module):
    """images [B, 784] f32 -> logits [B, 10] f32."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, HIDDEN, bias=False)
        self.features = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.classes = nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.features(torch.relu(self.hidden(images))))


class Training(nn.Module):
    """images [B, 784] f32, labels [B] i64 -> mean cross-entropy, logits [B, 10] f32."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        return self.criterion(logits, labels), logits


def model_of(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return Training() if case.training else Network()


def inputs_of(case: Case) -> dict[str, Tensor]:
    """The inputs of one step by name, in the order of forward's arguments."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(case.batch, FEATURES, generator=generator)
    if not case.training:
        return {"images": images}
    return {"images": images, "labels": torch.arange(case.batch) % CLASSES}
