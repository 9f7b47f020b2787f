"""Small networks as people write them: convolutional in one to three dimensions, graphs, experts,
pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .row import Batch, Row, adamw, classifier, images


def _mlp() -> nn.Module:
    return classifier(
        nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(),
            nn.Linear(256, 10),
        )
    )  # fmt: skip


def _lenet() -> nn.Module:
    return classifier(
        nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10),
        )
    )  # fmt: skip


def _conv1d() -> nn.Module:
    return classifier(
        nn.Sequential(
            nn.Conv1d(4, 16, 7, stride=2, padding=3), nn.BatchNorm1d(16), nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 5, padding=2, groups=2), nn.BatchNorm1d(32), nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(128, 10),
        )
    )  # fmt: skip


def _conv3d() -> nn.Module:
    return classifier(
        nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.InstanceNorm3d(16, affine=True), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 10),
        )
    )  # fmt: skip


def _signals() -> Batch:
    return {"signals": torch.randn(4, 4, 128), "labels": torch.randint(10, (4,))}


def _volumes() -> Batch:
    return {"volumes": torch.randn(4, 2, 8, 16, 16), "labels": torch.randint(10, (4,))}


class _GraphConvolution(nn.Module):
    """Each node sums its neighbours over a list of edges.  Kipf and Welling, Semi-Supervised
    Classification with Graph Convolutional Networks, with the random-walk normalisation.
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, classes)

    def forward(self, nodes: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        ones = torch.ones(sources.shape[0])
        degree = torch.ones(nodes.shape[0]).index_add(0, targets, ones)[:, None]

        def spread(x: Tensor) -> Tensor:
            return x.index_add(0, targets, x[sources]) / degree

        hidden = functional.relu(spread(self.first(nodes)))
        return spread(self.second(hidden))


def _graph() -> Batch:
    return {
        "nodes": torch.randn(40, 16),
        "sources": torch.randint(40, (160,)),
        "targets": torch.randint(40, (160,)),
        "labels": torch.randint(5, (40,)),
    }


class _Experts(nn.Module):
    """Every expert answers, and a router weighs the answers; the second loss keeps their loads
    even, as in Shazeer et al., Outrageously Large Neural Networks.
    """

    def __init__(self, width: int = 32, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, 2 * width, width) / (2 * width) ** 0.5)
        self.classes = nn.Linear(width, 10)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        weights = functional.softmax(self.router(x), -1)
        hidden = functional.silu(torch.einsum("bi,eih->beh", x, self.up))
        answers = torch.einsum("beh,eho->beo", hidden, self.down)
        logits = self.classes(x + torch.einsum("be,beo->bo", weights, answers))
        loads = weights.mean(0)
        return functional.cross_entropy(logits, labels) + 0.01 * loads.var() / loads.mean().square()


def _vectors() -> Batch:
    return {"x": torch.randn(16, 32), "labels": torch.randint(10, (16,))}


class _Siamese(nn.Module):
    """One network for both of a pair; likes close, others at least a margin apart.  Hadsell, Chopra
    and LeCun, Dimensionality Reduction by Learning an Invariant Mapping.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(),
            nn.AdaptiveMaxPool2d(5), nn.Flatten(), nn.Linear(400, 16),
        )  # fmt: skip

    def forward(self, left: Tensor, right: Tensor, alike: Tensor) -> Tensor:
        distance = functional.pairwise_distance(self.features(left), self.features(right))
        apart = functional.relu(1.0 - distance)
        return (alike * distance.square() + (1 - alike) * apart.square()).mean()


def _pairs() -> Batch:
    return {
        "left": torch.randn(4, 1, 28, 28),
        "right": torch.randn(4, 1, 28, 28),
        "alike": torch.randint(2, (4,)).float(),
    }


class _Contrastive(nn.Module):
    """Two views of each sample find one another in the batch.  Chen et al., A Simple Framework for
    Contrastive Learning of Visual Representations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        both = functional.normalize(self.project(torch.cat([first, second])), dim=1)
        likeness = both @ both.T / 0.5
        itself = torch.eye(likeness.shape[0], dtype=torch.bool)
        half = first.shape[0]
        partner = torch.cat([torch.arange(half, 2 * half), torch.arange(half)])
        return functional.cross_entropy(likeness.masked_fill(itself, float("-inf")), partner)


def _views() -> Batch:
    return {"first": torch.randn(8, 32), "second": torch.randn(8, 32)}


ROWS = (
    Row("MLP", "plain", _mlp, images(16, 28, channels=1), quick=True),
    Row("LeNet", "plain", _lenet, images(8, 28, channels=1), quick=True),
    Row("1-d convolutions", "plain", _conv1d, _signals),
    Row("3-d convolutions", "plain", _conv3d, _volumes),
    Row(
        "graph convolution", "plain", lambda: classifier(_GraphConvolution(16, 32, 5)), _graph,
        quick=True,
    ),
    Row("mixture of experts", "plain", _Experts, _vectors),
    Row("Siamese", "plain", _Siamese, _pairs),
    Row("contrastive", "plain", _Contrastive, _views, adamw),
)  # fmt: skip
