"""Every loss of torch.nn that has a compiled form, with its options."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case

REDUCTIONS = ("none", "sum", "mean")
N, C = 7, 10


class _Samples:
    """Random arguments of losses."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def unit(self, *shape: int) -> torch.Tensor:
        """Away from 0 and 1, where logarithms end."""
        return 0.9 * torch.rand(shape, generator=self.generator) + 0.05

    def signs(self, *shape: int) -> torch.Tensor:
        return torch.where(self.normal(*shape) < 0, -1.0, 1.0)

    def labels(self, *shape: int) -> torch.Tensor:
        return torch.randint(0, C, shape, generator=self.generator)

    def chances(self) -> torch.Tensor:
        return torch.softmax(self.normal(N, C), 1)

    def log_chances(self) -> torch.Tensor:
        return torch.log_softmax(self.normal(N, C), 1)


def _ignored() -> torch.Tensor:
    """Labels among which 3 stands twice, to be ignored."""
    return torch.tensor([3, 1, 4, 1, 5, 9, 3])


def _label_lists() -> torch.Tensor:
    """Rows of labels up to the first -1: some, one, none, a label twice, all."""
    lists = torch.full((N, C), -1)
    lists[0, :3] = torch.tensor([1, 4, 0])
    lists[1, 0] = 9
    lists[3, :2] = torch.tensor([3, 3])
    lists[4, 1] = 2
    lists[5] = torch.arange(C)
    return lists


def regression(reduction: str) -> list[Case]:
    s = _Samples()
    options: dict[str, Any] = {"reduction": reduction}
    pair = (s.normal(N, C), s.normal(N, C))
    losses = (
        nn.L1Loss(**options),
        nn.MSELoss(**options),
        nn.HuberLoss(delta=0.6, **options),
        nn.SmoothL1Loss(beta=0.6, **options),
        nn.SmoothL1Loss(beta=0.0, **options),
    )
    cases = [Case(str(loss), loss, pair) for loss in losses]
    counts = 5 * s.unit(N, C)
    cases += [
        Case("Poisson", nn.PoissonNLLLoss(**options), (pair[0], counts)),
        Case(
            "Poisson full",
            nn.PoissonNLLLoss(log_input=False, full=True, **options),
            (s.unit(N, C), counts),
        ),
        Case(
            "Gaussian",
            nn.GaussianNLLLoss(full=True, **options),
            (s.normal(N, C), s.normal(N, C), s.unit(N, C)),
        ),
        Case("KL", nn.KLDivLoss(**options), (s.log_chances(), s.chances())),
        Case(
            "KL log", nn.KLDivLoss(log_target=True, **options), (s.log_chances(), s.log_chances())
        ),
        Case("KL batchmean", nn.KLDivLoss(reduction="batchmean"), (s.log_chances(), s.chances())),
    ]
    return cases


def cross_entropy(reduction: str) -> list[Case]:
    s = _Samples()
    weight = s.unit(C)
    rows, ignored = s.normal(N, C), _ignored()

    def case(name: str, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Case:
        return Case(name, nn.CrossEntropyLoss(reduction=reduction, **options), (x, y))

    return [
        case("plain", rows, s.labels(N)),
        case("one row", s.normal(1, C), s.labels(1)),
        case("two classes, 33 rows", s.normal(33, 2), s.labels(33) % 2),
        case("bare label", s.normal(C), torch.tensor(4)),
        case("weight", rows, ignored, weight=weight),
        case("ignored label in range", rows, ignored, ignore_index=3),
        case("ignored label out of range", rows, torch.where(ignored == 3, -100, ignored)),
        case("everything", rows, ignored, weight=weight, ignore_index=3, label_smoothing=0.1),
        case("probabilities", rows, s.chances()),
        case(
            "weighted smooth probabilities", rows, s.chances(), weight=weight, label_smoothing=0.1
        ),
        case("1-d positions", s.normal(3, C, 4), s.labels(3, 4), label_smoothing=0.2),
        case(
            "2-d positions", s.normal(3, C, 4, 5), s.labels(3, 4, 5), weight=weight, ignore_index=3
        ),
        case("large scores", 100 * rows, s.labels(N)),
    ]


def classes(reduction: str) -> list[Case]:
    s = _Samples()
    options: dict[str, Any] = {"reduction": reduction}
    weight = s.unit(C)
    scores, labels = s.normal(N, C), s.labels(N)
    weighted = nn.NLLLoss(weight=weight, ignore_index=3, **options)
    squared = nn.MultiMarginLoss(p=2, margin=0.5, weight=weight, **options)
    several = nn.MultiLabelSoftMarginLoss(weight=weight, **options)
    logits = nn.BCEWithLogitsLoss(weight=weight, pos_weight=s.unit(C), **options)
    lists = _label_lists()
    return [
        Case("NLL", nn.NLLLoss(**options), (s.log_chances(), labels)),
        Case("NLL weight, ignore", weighted, (s.log_chances(), _ignored())),
        Case("NLL 2-d", nn.NLLLoss(**options), (s.normal(3, C, 4, 5), s.labels(3, 4, 5))),
        Case("NLL 3-d", nn.NLLLoss(**options), (s.normal(3, C, 4, 5, 2), s.labels(3, 4, 5, 2))),
        Case("BCE", nn.BCELoss(weight=weight, **options), (s.unit(N, C), s.unit(N, C))),
        Case(
            "BCE of 0 and 1",
            nn.BCELoss(**options),
            (torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 0.0, 1.0])),
        ),
        Case("BCE logits", nn.BCEWithLogitsLoss(**options), (scores, s.unit(N, C))),
        Case("BCE logits weights", logits, (scores, s.unit(N, C))),
        Case("MultiMargin", nn.MultiMarginLoss(**options), (scores, labels)),
        Case("MultiMargin p 2", squared, (scores, labels)),
        Case("MultiMargin bare", nn.MultiMarginLoss(**options), (s.normal(C), torch.tensor(2))),
        Case("MultiLabelMargin", nn.MultiLabelMarginLoss(**options), (scores, lists)),
        Case("MultiLabelMargin bare", nn.MultiLabelMarginLoss(**options), (s.normal(C), lists[0])),
        Case("MultiLabelSoftMargin", several, (scores, (s.unit(N, C) < 0.5).float())),
    ]


def distances(reduction: str) -> list[Case]:
    s = _Samples()
    options: dict[str, Any] = {"reduction": reduction}
    a, b, c = s.normal(N, C), s.normal(N, C), s.normal(N, C)
    cosine = nn.TripletMarginWithDistanceLoss(
        distance_function=lambda x, y: 1 - functional.cosine_similarity(x, y), **options
    )
    return [
        Case(
            "MarginRanking",
            nn.MarginRankingLoss(0.3, **options),
            (s.normal(N), s.normal(N), s.signs(N)),
        ),
        Case("HingeEmbedding", nn.HingeEmbeddingLoss(0.7, **options), (a, s.signs(N, C))),
        Case("SoftMargin", nn.SoftMarginLoss(**options), (a, s.signs(N, C).int())),
        Case("CosineEmbedding", nn.CosineEmbeddingLoss(0.1, **options), (a, b, s.signs(N))),
        Case("TripletMargin", nn.TripletMarginLoss(**options), (a, b, c)),
        Case("TripletMargin swapped", nn.TripletMarginLoss(p=1, swap=True, **options), (a, b, c)),
        Case("Triplet by cosine", cosine, (a, b, c)),
        Case(
            "Triplet by distance", nn.TripletMarginWithDistanceLoss(swap=True, **options), (a, b, c)
        ),
    ]


class Adaptive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.AdaptiveLogSoftmaxWithLoss(8, 12, [3, 7], 2.0, head_bias=True)

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        output, loss = self.head(x, words)
        return output * loss


def adaptive() -> list[Case]:
    s = _Samples()
    return [
        Case("adaptive", Adaptive(), (s.normal(12, 8), torch.arange(12))),
        Case("adaptive bare", Adaptive(), (s.normal(8), torch.tensor(5))),
    ]
