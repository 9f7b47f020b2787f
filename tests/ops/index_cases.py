"""Values read and written at computed indices."""

from __future__ import annotations

from collections.abc import Callable
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
    for dtype in (
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int32,
        torch.uint8,
        torch.bool,
    ):
        table = integers(7, 10).abs().to(dtype)
        cases.append(
            case(f"look up {dtype}", number(lambda a, i: a[i]), table, pick, torch.ones(1))
        )
        cases.append(
            case(
                f"gather {dtype}",
                number(lambda a, i: a.gather(1, i)),
                table,
                below(10, 7, 3),
                torch.ones(1),
            )
        )
    return [
        *cases,
        case("x[i]", lambda a, i: a[i], x, pick),
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


def embeddings() -> list[Case]:
    index = torch.tensor([[1, 9, 1, 0], [0, 3, 3, 2]])
    tied = nn.Embedding(12, 8)
    return [
        case("Embedding", nn.Embedding(10, 4), index),
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


def scatters() -> list[Case]:
    x, src, cube = normal(7, 10), normal(7, 10), normal(4, 5, 64)
    columns = torch.stack([torch.randperm(10, generator=_GENERATOR)[:4] for _ in range(7)])
    rows = torch.stack([torch.randperm(7, generator=_GENERATOR)[:3] for _ in range(10)], 1)
    many = below(10, 7, 10)
    reduces = ("sum", "prod", "mean", "amax", "amin")
    cases = [
        case(
            f"scatter_reduce {by} {keep}",
            lambda a, s, i, b=by, k=keep: a.scatter_reduce(1, i, s, b, include_self=k),
            x,
            src[:, :4],
            columns,
        )
        for by in reduces
        for keep in (True, False)
    ]
    cases += [
        case(
            f"index_reduce {by}",
            lambda a, s, b=by: a.index_reduce(0, torch.tensor([2, 0, 2]), s, b),
            x.clone(),
            src[:3],
        )
        for by in ("mean", "amax", "amin")
    ]
    for dtype in (torch.float64, torch.bfloat16, torch.int32, torch.int64):
        a, b = integers(7, 10).to(dtype), integers(7, 10).to(dtype)
        cases.append(
            case(
                f"scatter_add {dtype}",
                number(lambda a, b, i: a.scatter_add(1, i, b)),
                a,
                b,
                many,
                torch.ones(1),
            )
        )
        cases.append(
            case(
                f"scatter {dtype}",
                number(lambda a, b, i: a.scatter(1, i, b)),
                a,
                b[:, :4],
                columns,
                torch.ones(1),
            )
        )
    return [
        *cases,
        case("scatter 1", lambda a, s, i: a.scatter(1, i, s), x, src[:, :4], columns),
        case("scatter 0", lambda a, s, i: a.scatter(0, i, s), x, src[:3], rows),
        case("scatter of a number", lambda a, i: a.scatter(1, i, 2.5), x, columns),
        case(
            "scatter of less", lambda a, s, i: a.scatter(1, i, s.detach()), x, src, columns[:3, :2]
        ),
        case(
            "scatter of none", lambda a, s, i: a.scatter(1, i, s.detach()), x, src, columns[:, :0]
        ),
        case(
            "scatter multiply",
            lambda a, i: a * a.detach().scatter(1, i, 3.0, reduce="multiply"),
            x.round(),
            columns,
        ),
        case("scatter_add 1", lambda a, s, i: a.scatter_add(1, i, s), x, src, many),
        case("scatter_add 0", lambda a, s, i: a.scatter_add(0, i, s), x, src[:5], below(7, 5, 10)),
        case(
            "scatter_add of columns",
            lambda a, s, i: a.scatter_add(1, i[..., None].expand(4, 3, 64), s),
            cube,
            normal(4, 3, 64),
            below(5, 4, 3),
        ),
        case("index_add 0", lambda a, s, i: a.index_add(0, i, s), x, normal(9, 10), below(7, 9)),
        case(
            "index_add 1",
            lambda a, s, i: a.index_add(1, i, s, alpha=0.5),
            x,
            normal(7, 4),
            below(10, 4),
        ),
        case(
            "index_add of columns",
            lambda a, s, i: a.index_add(1, i, s),
            cube,
            normal(4, 9, 64),
            below(5, 9),
        ),
        case(
            "index_add 1-d",
            lambda a, s, i: a.index_add(0, i, s),
            normal(5),
            normal(9),
            below(5, 9),
        ),
        case(
            "index_copy", lambda a, s: a.index_copy(1, torch.tensor([4, 0, 7]), s), x, normal(7, 3)
        ),
        case("index_fill", lambda a: a.index_fill(0, torch.tensor([4, -1]), 2.0), x),
        case(
            "index_put", lambda a, s: a.index_put((torch.tensor([4, -1, 0]),), s), x, normal(3, 10)
        ),
        case("x[:, i] = y", _assigned(torch.tensor([4, -1, 0])), x, normal(7, 3)),
        case(
            "index_put of pairs",
            lambda a, s, i: a.index_put((i, i + 1), s),
            x,
            normal(4),
            torch.tensor([3, 1, 0, 5]),
        ),
        case(
            "index_put, added",
            lambda a, s, i, j: a.index_put((i, j), s, accumulate=True),
            x,
            normal(6),
            below(7, 6),
            below(10, 6),
        ),
        case(
            "index_put apart",
            lambda a, s, i, j: a.index_put((i, torch.tensor([[0], [1]]), j), s, True),
            cube,
            normal(2, 3),
            below(4, 3),
            below(64, 2, 1),
        ),
        case(
            "index_put broadcast",
            lambda a, s, i: a.index_put((i,), s, True),
            x,
            normal(1),
            below(7, 2, 3),
        ),
        case(
            "x[mask] = 2",
            lambda a: a.masked_fill(a > 0, 0.0).index_put((a < 0,), torch.tensor(2.0)) * a,
            x,
        ),
        case(
            "x[mask of rows] = y",
            lambda a, s: a.detach().index_put((a[:, 0] > 0,), s.detach()) * a,
            x,
            normal(10),
        ),
        case("put", lambda a, s, i: a.put(i, s, accumulate=True), x, normal(5), below(70, 5)),
        case(
            "a histogram",
            lambda a, i: torch.zeros(10).index_add(0, i, a.exp()),
            normal(40),
            below(10, 40),
        ),
        case("a mean over edges", _edges, normal(6, 16), below(6, 2, 20)),
    ]


def _assigned(index: torch.Tensor) -> Callable[..., torch.Tensor]:
    def function(a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        a = a * 2
        a[:, index] = s
        a[2:4, index[:1]] += 1
        return a

    return function


def _edges(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """What a graph convolution does: the mean of the neighbours."""
    source, target = edges
    total = torch.zeros_like(x).index_add(0, target, x[source])
    count = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(target.shape[0]))
    return total / count.clamp(min=1)[:, None]
