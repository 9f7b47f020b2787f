"""Values read at computed indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(17)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def below(size: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, size, shape, generator=_GENERATOR)


def case(name: str, function: Callable[..., Any], *tensors: torch.Tensor) -> Case:
    module = function if isinstance(function, nn.Module) else Function(function)
    return Case(name, module, tensors)


def number(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Its result as a float32 that a loss may be made of, times the last argument."""
    return lambda *tensors: function(*tensors[:-1]).float() * tensors[-1]


def integers(*shape: int) -> torch.Tensor:
    return below(100, *shape) - 50


def lookups() -> list[Case]:
    x, cube = normal(7, 10), normal(4, 5, 6)
    pick = torch.tensor([0, -1, 3, 3])
    cases = [
        case(f"gather {shape} {dim}", lambda a, i, d=dim: 2 * a.gather(d, i), normal(*shape), index)
        for shape, dim, index in (
            ((7, 10), 0, below(7, 3, 10)),
            ((7, 10), -1, below(10, 7, 3)),
            ((7, 10), 1, below(10, 4, 17)),
            ((1, 10), 1, below(10, 1, 3)),
            ((7, 1), 1, torch.zeros(7, 5, dtype=torch.long)),
            ((4, 5, 6), 1, below(5, 4, 3, 6)),
            ((4, 5, 6), 0, below(4, 2, 2, 2)),
            ((33,), 0, below(33, 40)),
            ((7, 10), 1, below(10, 7, 0)),
        )
    ]
    cases += [
        case(f"index_select {dim}", lambda a, i, d=dim: a.index_select(d, i), cube, below(4, 9))
        for dim in (0, 1, -1)
    ]
    return [
        *cases,
        *_lookups_of(torch.float64, torch.bfloat16, torch.float16),
        *_lookups_of(torch.int32, torch.uint8, torch.bool),
        case("x[i]", lambda a, i: a[i], x, pick),
        case("x[i] of a number", lambda a, i: a[i] + a[2:, i].sum(), x, torch.tensor(-2)),
        case("x[known mask]", lambda a: a[torch.eye(7, 10) > 0], x),
        case("masked_select", lambda a: a.masked_select(torch.eye(7, 10) > 0), x),
        case("x[:, i]", lambda a, i: a[:, i], x, pick),
        case("x[..., i]", lambda a, i: a[..., i], cube, below(6, 3, 2)),
        case("x[i] of none", lambda a, i: a[i], x, torch.zeros(0, dtype=torch.long)),
        case("x[i, j]", lambda a, i, j: a[i, j], x, pick, below(10, 4)),
        case("x[i, j] broadcast", lambda a, i, j: a[i, j], x, below(7, 3, 1), below(10, 2)),
        case("x[:, i, j]", lambda a, i, j: a[:, i, j], cube, below(5, 3), below(6, 3)),
        case("x[i, :, j]", lambda a, i, j: a[i, :, j], cube, below(4, 3), below(6, 3)),
        case("x[i, :, j] 2-d", lambda a, i, j: a[i, :, j], cube, below(4, 3, 1), below(6, 2)),
        case("x[i, j, k]", lambda a, i: a[i, i, i - 1], cube, below(4, 2, 3)),
        case("x[i, 2:, ::2]", lambda a, i: a[i, 2:, ::2], cube, below(4, 3)),
        case("x[i] of int32", lambda a, i: a[i], x, pick.int()),
        case("of a computed index", lambda a, i: a[(i * 2) % 7].exp(), x, below(90, 11)),
        case("of a computed table", lambda a, i: (a @ a.t()).exp()[i], 0.1 * x, pick),
        case("of a permuted table", lambda a, i: a.t()[i] * a.t().exp()[i], x, pick),
        case("of a look-up", lambda a, i, j: a[i[j]], x, below(7, 5), below(5, 9)),
        case("before a product", lambda a, i, w: a[i] @ w, x, below(7, 12), normal(10, 9)),
        case("behind a product", lambda a, w, i: (a @ w)[i] + a[i] @ w, x, normal(10, 9), pick),
        case("summed", lambda a, i: (a[i] * a[i]).sum(0), x, below(7, 40)),
        case("take", lambda a, i: a.take(i), x, below(70, 3, 5) - 35),
        case("take_along_dim", lambda a: a.take_along_dim(a.abs().argmax(1, True), 1), x),
        case("along rows of pairs", lambda a, i: a[torch.arange(7), i], x, below(10, 7)),
    ]


def _lookups_of(*dtypes: torch.dtype) -> Iterator[Case]:
    pick, columns, one = torch.tensor([0, -1, 3, 3]), below(10, 7, 3), torch.ones(1)
    for dtype in dtypes:
        table = integers(7, 10).abs().to(dtype)
        yield case(f"look up {dtype}", number(lambda a, i: a[i]), table, pick, one)
        yield case(f"gather {dtype}", number(lambda a, i: a.gather(1, i)), table, columns, one)


def embeddings() -> list[Case]:
    index = torch.tensor([[1, 9, 1, 0], [0, 3, 3, 2]])
    tied = nn.Embedding(12, 8)
    return [
        case("Embedding", nn.Embedding(10, 4), index),
        case("Embedding sparse", nn.Embedding(10, 4, sparse=True), index),
        case("Embedding of 33", nn.Embedding(10, 33), index),
        case("Embedding of 64", nn.Embedding(10, 64), index),
        case("Embedding of 1", nn.Embedding(10, 1), index),
        case("Embedding int32", nn.Embedding(10, 4), index.int()),
        case("Embedding of one", nn.Embedding(10, 4), torch.tensor(3)),
        case("Embedding 3-d", nn.Embedding(10, 4), below(10, 2, 3, 4)),
        case("Embedding padded", nn.Embedding(10, 4, padding_idx=3), index),
        case("Embedding padded -1", nn.Embedding(10, 4, padding_idx=-1), index),
        case("Embedding by frequency", nn.Embedding(10, 4, scale_grad_by_freq=True), index),
        case("tied", _Tied(tied), below(12, 2, 5)),
        *(
            case(f"EmbeddingBag {mode}", nn.EmbeddingBag(10, 4, mode=mode), index)
            for mode in ("sum", "mean", "max")
        ),
        *(
            case(
                f"EmbeddingBag {mode} of unequal bags",
                nn.EmbeddingBag(10, 4, mode=mode, padding_idx=3),
                index.reshape(-1),
                torch.tensor([0, 3, 3, 7]),
            )
            for mode in ("sum", "mean", "max")
        ),
        case(
            "EmbeddingBag to the last offset",
            nn.EmbeddingBag(10, 4, mode="sum", include_last_offset=True),
            index.reshape(-1),
            torch.tensor([0, 3, 8]),
        ),
        case(
            "EmbeddingBag weighted",
            lambda w, i, s: functional.embedding_bag(i, w, mode="sum", per_sample_weights=s),
            normal(10, 4),
            index,
            normal(2, 4),
        ),
        case(
            "one_hot",
            lambda a, i: functional.one_hot(i, 10).float() * a,
            normal(7, 10),
            below(10, 7),
        ),
    ]


class _Tied(nn.Module):
    """The table is the last product's weight, too."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return functional.linear(torch.tanh(self.table(index)), self.table.weight)
