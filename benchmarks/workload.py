"""What is measured: training steps (forward, loss, backward, SGD) and forward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import networks
import torch
from torch import Tensor, nn

FEATURES, HIDDEN, CLASSES = 784, 32, 10
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4


@dataclass(frozen=True)
class Case:
    """A training step or a forward pass.  `shape` is that of the input; `labels`, [rows] or with
    spatial dimensions, are classes below `classes`.  Token inputs are integers below `words`."""

    name: str
    training: bool
    network: Callable[..., nn.Module]
    shape: tuple[int, ...]
    labels: tuple[int, ...]
    classes: int = CLASSES
    words: int = 0

    @property
    def of_images(self) -> bool:
        return len(self.shape) == 4

    @property
    def of_ffn(self) -> bool:
        return self.network is Network


class Network(nn.Module):
    """images [B, 784] f32 -> logits [B, 10] f32."""

    def __init__(self, width: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, width, bias=False)
        self.features = nn.Linear(width, width, bias=False)
        self.classes = nn.Linear(width, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.features(torch.relu(self.hidden(images))))


class Training(nn.Module):
    """inputs, labels -> mean cross-entropy, logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(inputs)
        return self.criterion(logits, labels), logits


class _Rows(nn.Module):
    """[B, T, C] -> [B * T, C]"""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).flatten(0, 1)


def _block() -> nn.Module:
    return _Rows(networks.Block())


def _ffn(training: bool, batch: int) -> Case:
    name = f"{'train' if training else 'infer'}-{batch}"
    return Case(name, training, Network, (batch, FEATURES), (batch,))


def _wide_ffn() -> nn.Module:
    return Network(512)


def _network(
    name: str, network: Callable[[], nn.Module], batch: int, shape: tuple[int, ...],
    labels: tuple[int, ...] = (), rows: int = 1, classes: int = CLASSES, words: int = 0,
) -> list[Case]:  # fmt: skip
    """Training at `batch`, inference at 1 and 32; `rows` labels a sample, each of a shape."""

    def case(label: str, training: bool, n: int) -> Case:
        return Case(
            label, training, network, (n, *shape), (n * rows, *labels), classes, words
        )  # fmt: skip

    return [
        case(name, True, batch),
        case(f"{name}-infer-1", False, 1),
        case(f"{name}-infer-32", False, 32),
    ]


CASES = {
    case.name: case
    for case in (
        *(_ffn(True, batch) for batch in (1, 16, 128, 1024)),
        *(_ffn(False, batch) for batch in (1, 128)),
        Case("train-1024-wide", True, _wide_ffn, (1024, FEATURES), (1024,)),
        *_network("lenet", networks.LeNet, 32, (1, 28, 28)),
        *_network("mlp", networks.mlp, 256, (1024,), classes=1024),
        *_network("unet", networks.UNet, 4, (3, 64, 64), labels=(64, 64), classes=2),
        *_network("resnet18", networks.resnet18, 8, (3, 64, 64)),
        *_network("block", _block, 4, (128, 256), rows=128, classes=256),
        *_network("gpt", networks.GPT, 4, (128,), rows=128, classes=8192, words=8192),
        *_network("vit", networks.ViT, 8, (3, 64, 64)),
        *_network("lstm", networks.BiLSTM, 16, (32, 64)),
    )
}

OF_REPLICAS = frozenset({"train-1024-wide"})
GROUPS = {
    "ffn": ",".join(name for name, case in CASES.items() if case.of_ffn),
    "networks": ",".join(
        name for name, case in CASES.items() if not case.of_ffn and name not in OF_REPLICAS
    ),
}


def model_of(case: Case) -> nn.Module:
    torch.manual_seed(0)
    network = case.network()
    return Training(network) if case.training else network.eval()


def inputs_of(case: Case) -> dict[str, Tensor]:
    """The inputs of one step by name, in the order of forward's arguments."""
    generator = torch.Generator().manual_seed(1)
    if case.words:
        inputs = torch.randint(case.words, case.shape, generator=generator)
    else:
        inputs = torch.randn(case.shape, generator=generator)
    if not case.training:
        return {"inputs": inputs}
    return {
        "inputs": inputs,
        "labels": torch.randint(case.classes, case.labels, generator=generator),
    }
