"""Connectionist temporal classification: lengths, forms of the targets, what has no path."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.ops.against_eager import Case

T, N, C, S = 11, 4, 6, 5


class _Loss(nn.Module):
    """Of the log-softmax of scores, or of log-probabilities as they are."""

    def __init__(self, lengths: tuple[Any, ...], of_scores: bool, **options: Any) -> None:
        super().__init__()
        self.lengths = lengths
        self.of_scores = of_scores
        self.loss = nn.CTCLoss(**options)

    def forward(self, x: torch.Tensor, targets: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        x = x.log_softmax(-1) if self.of_scores else x
        return self.loss(x, targets, *(given or self.lengths))


def cases(reduction: str) -> list[Case]:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn((T, N, C), generator=generator)
    padded = torch.randint(1, C, (N, S), generator=generator)
    padded[0] = torch.tensor([2, 2, 3, 3, 3])  # equal neighbours need a blank between them
    frames, labels = (11, 9, 4, 0), (5, 3, 4, 0)
    flat = torch.cat([row[:count] for row, count in zip(padded, labels, strict=True)])
    lengths = torch.tensor(frames), torch.tensor(labels)
    impossible = (11, 2, 0, 11), (5, 3, 1, 0)
    every = {"reduction": reduction}

    def case(
        name: str, lengths: tuple[Any, ...], x: torch.Tensor, *given: torch.Tensor,
        of_scores: bool = True, **options: Any,
    ) -> Case:  # fmt: skip
        return Case(name, _Loss(lengths, of_scores, **every, **options), (x, *given))

    return [
        case("padded", (frames, labels), scores, padded),
        case("padded, run-time lengths", (), scores, padded.int(), *lengths),
        case("one after the other", (frames, labels), scores, flat),
        case("one after the other, run-time lengths", (), scores, flat, *lengths),
        case("lengths of the model's own", lengths, scores, padded),
        case("another blank", (frames, labels), scores, padded - 1, blank=5),
        case("f64", (frames, labels), scores.double(), padded),
        case("log-probabilities", (frames, labels), scores.log_softmax(2), padded, of_scores=False),
        case("no path", impossible, scores, padded),
        case("no path, no matter", impossible, scores, padded, zero_infinity=True),
        case("longer than the frames", ((3,), (5,)), scores[:3, :1], padded[:1]),
        case("one frame", ((1,), (1,)), scores[:1, :1], padded[:1]),
        case("no labels", ((T,) * N, (0,) * N), scores, padded[:, :0]),
        case("no batch", ((T,), (S,)), scores[:, 0], padded[0]),
    ]
