"""Values read and written at computed indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(17)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _below(size: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, size, shape, generator=_GENERATOR)


def _case(name: str, function: Callable[..., Any], *tensors: torch.Tensor) -> Case:
    module = function if isinstance(function, nn.Module) else Function(function)
    return Case(name, module, tensors)


def _number(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Its result as a float32 that a loss may be made of, times the last argument."""
    return lambda *tensors: function(*tensors[:-1]).float() * tensors[-1]


def _integers(*shape: int) -> torch.Tensor:
    return _below(100, *shape) - 50


def lookups() -> list[Case]:
    x, cube = _normal(7, 10), _normal(4, 5, 6)
    pick = torch.tensor([0, -1, 3, 3])
    cases = [
        _case(
            f"gather {shape} {dim}", lambda a, i, d=dim: 2 * a.gather(d, i), _normal(*shape), index
        )
        for shape, dim, index in (
            ((7, 10), 0, _below(7, 3, 10)),
            ((7, 10), -1, _below(10, 7, 3)),
            ((7, 10), 1, _below(10, 4, 17)),
            ((1, 10), 1, _below(10, 1, 3)),
            ((7, 1), 1, torch.zeros(7, 5, dtype=torch.long)),
            ((4, 5, 6), 1, _below(5, 4, 3, 6)),
            ((4, 5, 6), 0, _below(4, 2, 2, 2)),
            ((33,), 0, _below(33, 40)),
            ((7, 10), 1, _below(10, 7, 0)),
        )
    ]
    cases += [
        _case(f"index_select {dim}", lambda a, i, d=dim: a.index_select(d, i), cube, _below(4, 9))
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
        table = _integers(7, 10).abs().to(dtype)
        cases.append(
            _case(f"look up {dtype}", _number(lambda a, i: a[i]), table, pick, torch.ones(1))
        )
        cases.append(
            _case(
                f"gather {dtype}",
                _number(lambda a, i: a.gather(1, i)),
                table,
                _below(10, 7, 3),
                torch.ones(1),
            )
        )
    return [
        *cases,
        _case("x[i]", lambda a, i: a[i], x, pick),
        _case("x[:, i]", lambda a, i: a[:, i], x, pick),
        _case("x[..., i]", lambda a, i: a[..., i], cube, _below(6, 3, 2)),
        _case("x[i] of none", lambda a, i: a[i], x, torch.zeros(0, dtype=torch.long)),
        _case("x[i, j]", lambda a, i, j: a[i, j], x, pick, _below(10, 4)),
        _case("x[i, j] broadcast", lambda a, i, j: a[i, j], x, _below(7, 3, 1), _below(10, 2)),
        _case("x[:, i, j]", lambda a, i, j: a[:, i, j], cube, _below(5, 3), _below(6, 3)),
        _case("x[i, :, j]", lambda a, i, j: a[i, :, j], cube, _below(4, 3), _below(6, 3)),
        _case("x[i, :, j] 2-d", lambda a, i, j: a[i, :, j], cube, _below(4, 3, 1), _below(6, 2)),
        _case("x[i, j, k]", lambda a, i: a[i, i, i - 1], cube, _below(4, 2, 3)),
        _case("x[i, 2:, ::2]", lambda a, i: a[i, 2:, ::2], cube, _below(4, 3)),
        _case("x[i] of int32", lambda a, i: a[i], x, pick.int()),
        _case("of a computed index", lambda a, i: a[(i * 2) % 7].exp(), x, _below(90, 11)),
        _case("of a computed table", lambda a, i: (a @ a.t()).exp()[i], 0.1 * x, pick),
        _case("of a permuted table", lambda a, i: a.t()[i] * a.t().exp()[i], x, pick),
        _case("of a look-up", lambda a, i, j: a[i[j]], x, _below(7, 5), _below(5, 9)),
        _case("before a product", lambda a, i, w: a[i] @ w, x, _below(7, 12), _normal(10, 9)),
        _case("behind a product", lambda a, w, i: (a @ w)[i] + a[i] @ w, x, _normal(10, 9), pick),
        _case("summed", lambda a, i: (a[i] * a[i]).sum(0), x, _below(7, 40)),
        _case("take", lambda a, i: a.take(i), x, _below(70, 3, 5) - 35),
        _case("take_along_dim", lambda a: a.take_along_dim(a.abs().argmax(1, True), 1), x),
        _case("along rows of pairs", lambda a, i: a[torch.arange(7), i], x, _below(10, 7)),
    ]


def embeddings() -> list[Case]:
    index = torch.tensor([[1, 9, 1, 0], [0, 3, 3, 2]])
    tied = nn.Embedding(12, 8)
    return [
        _case("Embedding", nn.Embedding(10, 4), index),
        _case("Embedding of 33", nn.Embedding(10, 33), index),
        _case("Embedding of 64", nn.Embedding(10, 64), index),
        _case("Embedding of 1", nn.Embedding(10, 1), index),
        _case("Embedding int32", nn.Embedding(10, 4), index.int()),
        _case("Embedding of one", nn.Embedding(10, 4), torch.tensor(3)),
        _case("Embedding 3-d", nn.Embedding(10, 4), _below(10, 2, 3, 4)),
        _case("Embedding padded", nn.Embedding(10, 4, padding_idx=3), index),
        _case("Embedding padded -1", nn.Embedding(10, 4, padding_idx=-1), index),
        _case("Embedding by frequency", nn.Embedding(10, 4, scale_grad_by_freq=True), index),
        _case("tied", _Tied(tied), _below(12, 2, 5)),
        *(
            _case(f"EmbeddingBag {mode}", nn.EmbeddingBag(10, 4, mode=mode), index)
            for mode in ("sum", "mean", "max")
        ),
        *(
            _case(
                f"EmbeddingBag {mode} of unequal bags",
                nn.EmbeddingBag(10, 4, mode=mode, padding_idx=3),
                index.reshape(-1),
                torch.tensor([0, 3, 3, 7]),
            )
            for mode in ("sum", "mean", "max")
        ),
        _case(
            "EmbeddingBag to the last offset",
            nn.EmbeddingBag(10, 4, mode="sum", include_last_offset=True),
            index.reshape(-1),
            torch.tensor([0, 3, 8]),
        ),
        _case(
            "EmbeddingBag weighted",
            lambda w, i, s: functional.embedding_bag(i, w, mode="sum", per_sample_weights=s),
            _normal(10, 4),
            index,
            _normal(2, 4),
        ),
        _case(
            "one_hot",
            lambda a, i: functional.one_hot(i, 10).float() * a,
            _normal(7, 10),
            _below(10, 7),
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
    x, src, cube = _normal(7, 10), _normal(7, 10), _normal(4, 5, 64)
    columns = torch.stack([torch.randperm(10, generator=_GENERATOR)[:4] for _ in range(7)])
    rows = torch.stack([torch.randperm(7, generator=_GENERATOR)[:3] for _ in range(10)], 1)
    many = _below(10, 7, 10)
    reduces = ("sum", "prod", "mean", "amax", "amin")
    cases = [
        _case(
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
        _case(
            f"index_reduce {by}",
            lambda a, s, b=by: a.index_reduce(0, torch.tensor([2, 0, 2]), s, b),
            x.clone(),
            src[:3],
        )
        for by in ("mean", "amax", "amin")
    ]
    for dtype in (torch.float64, torch.bfloat16, torch.int32, torch.int64):
        a, b = _integers(7, 10).to(dtype), _integers(7, 10).to(dtype)
        cases.append(
            _case(
                f"scatter_add {dtype}",
                _number(lambda a, b, i: a.scatter_add(1, i, b)),
                a,
                b,
                many,
                torch.ones(1),
            )
        )
        cases.append(
            _case(
                f"scatter {dtype}",
                _number(lambda a, b, i: a.scatter(1, i, b)),
                a,
                b[:, :4],
                columns,
                torch.ones(1),
            )
        )
    return [
        *cases,
        _case("scatter 1", lambda a, s, i: a.scatter(1, i, s), x, src[:, :4], columns),
        _case("scatter 0", lambda a, s, i: a.scatter(0, i, s), x, src[:3], rows),
        _case("scatter of a number", lambda a, i: a.scatter(1, i, 2.5), x, columns),
        _case(
            "scatter of less", lambda a, s, i: a.scatter(1, i, s.detach()), x, src, columns[:3, :2]
        ),
        _case(
            "scatter of none", lambda a, s, i: a.scatter(1, i, s.detach()), x, src, columns[:, :0]
        ),
        _case(
            "scatter multiply",
            lambda a, i: a * a.detach().scatter(1, i, 3.0, reduce="multiply"),
            x.round(),
            columns,
        ),
        _case("scatter_add 1", lambda a, s, i: a.scatter_add(1, i, s), x, src, many),
        _case(
            "scatter_add 0", lambda a, s, i: a.scatter_add(0, i, s), x, src[:5], _below(7, 5, 10)
        ),
        _case(
            "scatter_add of columns",
            lambda a, s, i: a.scatter_add(1, i[..., None].expand(4, 3, 64), s),
            cube,
            _normal(4, 3, 64),
            _below(5, 4, 3),
        ),
        _case("index_add 0", lambda a, s, i: a.index_add(0, i, s), x, _normal(9, 10), _below(7, 9)),
        _case(
            "index_add 1",
            lambda a, s, i: a.index_add(1, i, s, alpha=0.5),
            x,
            _normal(7, 4),
            _below(10, 4),
        ),
        _case(
            "index_add of columns",
            lambda a, s, i: a.index_add(1, i, s),
            cube,
            _normal(4, 9, 64),
            _below(5, 9),
        ),
        _case(
            "index_add 1-d",
            lambda a, s, i: a.index_add(0, i, s),
            _normal(5),
            _normal(9),
            _below(5, 9),
        ),
        _case(
            "index_copy", lambda a, s: a.index_copy(1, torch.tensor([4, 0, 7]), s), x, _normal(7, 3)
        ),
        _case("index_fill", lambda a: a.index_fill(0, torch.tensor([4, -1]), 2.0), x),
        _case(
            "index_put", lambda a, s: a.index_put((torch.tensor([4, -1, 0]),), s), x, _normal(3, 10)
        ),
        _case("x[:, i] = y", _assigned(torch.tensor([4, -1, 0])), x, _normal(7, 3)),
        _case(
            "index_put of pairs",
            lambda a, s, i: a.index_put((i, i + 1), s),
            x,
            _normal(4),
            torch.tensor([3, 1, 0, 5]),
        ),
        _case(
            "index_put, added",
            lambda a, s, i, j: a.index_put((i, j), s, accumulate=True),
            x,
            _normal(6),
            _below(7, 6),
            _below(10, 6),
        ),
        _case(
            "index_put apart",
            lambda a, s, i, j: a.index_put((i, torch.tensor([[0], [1]]), j), s, True),
            cube,
            _normal(2, 3),
            _below(4, 3),
            _below(64, 2, 1),
        ),
        _case(
            "index_put broadcast",
            lambda a, s, i: a.index_put((i,), s, True),
            x,
            _normal(1),
            _below(7, 2, 3),
        ),
        _case(
            "x[mask] = 2",
            lambda a: a.masked_fill(a > 0, 0.0).index_put((a < 0,), torch.tensor(2.0)) * a,
            x,
        ),
        _case(
            "x[mask of rows] = y",
            lambda a, s: a.detach().index_put((a[:, 0] > 0,), s.detach()) * a,
            x,
            _normal(10),
        ),
        _case("put", lambda a, s, i: a.put(i, s, accumulate=True), x, _normal(5), _below(70, 5)),
        _case(
            "a histogram",
            lambda a, i: torch.zeros(10).index_add(0, i, a.exp()),
            _normal(40),
            _below(10, 40),
        ),
        _case("a mean over edges", _edges, _normal(6, 16), _below(6, 2, 20)),
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


def _special(*shape: int) -> torch.Tensor:
    """With ties, infinities and NaN."""
    x = _below(5, *shape).float()
    x.view(-1)[::7], x.view(-1)[3::11], x.view(-1)[5::13] = torch.inf, -torch.inf, torch.nan
    return x


def _scans(name: str, shape: tuple[int, ...], dim: int) -> Case:
    function = getattr(torch, name)
    return _case(f"{name} {shape} {dim}", lambda a: function(a, dim) * a, 0.5 * _normal(*shape))


def scans() -> list[Case]:
    x = _normal(7, 10)
    cases = [
        _scans(name, shape, dim)
        for name in ("cumsum", "cumprod", "logcumsumexp")
        for shape, dim in (
            ((7, 10), 0),
            ((7, 10), -1),
            ((3, 5, 41), 1),
            ((5, 64), 0),
            ((33,), 0),
            ((1, 6), 0),
            ((0, 6), 0),
        )
    ]
    for name in ("cummax", "cummin"):
        function = getattr(torch, name)
        for dim in (0, 1):
            cases.append(_case(f"{name} {dim}", lambda a, f=function, d=dim: f(a, d)[0], x))
            cases.append(
                _case(
                    f"{name} of special values {dim}",
                    _number(lambda a, f=function, d=dim: f(a.detach(), d)[1]),
                    _special(7, 10),
                    torch.ones(1),
                )
            )
    for dtype in (torch.float64, torch.bfloat16, torch.int32, torch.uint8, torch.bool):
        table = _integers(7, 10).abs().to(dtype)
        cases.append(_case(f"cumsum {dtype}", _number(lambda a: a.cumsum(1)), table, torch.ones(1)))
    mask = _normal(7, 10) > 0
    return [
        *cases,
        _case("cumsum of a number", lambda a: a.sum().cumsum(0), x),
        _case("cumsum to double", lambda a: a.cumsum(0, dtype=torch.float64).float(), x),
        _case("cumsum of a view", lambda a: a.t().flip(0).cumsum(0), x),
        _case("cumsum of an expression", lambda a: (a.exp() + 1).cumsum(1), x),
        _case(
            "logcumsumexp of special values",
            lambda a: a.logcumsumexp(1).nan_to_num(),
            _special(7, 10)
            .nan_to_num(nan=-torch.inf, posinf=50.0, neginf=-torch.inf)
            .detach()
            .long()
            .float(),
        ),
        _case("masked_scatter", lambda a, s, m: a.masked_scatter(m, s), x, _normal(80), mask),
        _case(
            "masked_scatter of rows",
            lambda a, s, m: a.masked_scatter(m, s),
            x,
            _normal(9, 10),
            mask[:, :1],
        ),
    ]


def _sorts(shape: tuple[int, ...], dim: int, descending: bool) -> Case:
    def function(a: torch.Tensor) -> torch.Tensor:
        values, places = a.sort(stable=True, dim=dim, descending=descending)
        return values * (places + 1)

    return _case(f"sort {shape} {dim} {descending}", function, _normal(*shape))


def sorts() -> list[Case]:
    x = _normal(7, 10)
    shapes = (
        ((7, 10), 0),
        ((7, 10), -1),
        ((3, 5, 33), 1),
        ((3, 4, 33), 2),
        ((130,), 0),
        ((1,), 0),
        ((4, 0), 1),
    )
    cases = [_sorts(shape, dim, way) for shape, dim in shapes for way in (False, True)]
    for way in (False, True):
        for dim in (0, 1):
            cases.append(
                _case(
                    f"argsort of special values {dim} {way}",
                    _number(
                        lambda a, w=way, d=dim: a.detach().argsort(stable=True, dim=d, descending=w)
                    ),
                    _special(17, 19),
                    torch.ones(1),
                )
            )
    for dtype in (
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ):
        table = _integers(7, 10).abs().to(dtype)
        cases.append(
            _case(
                f"sort {dtype}",
                _number(lambda a: a.sort(stable=True, dim=1)[1]),
                table,
                torch.ones(1),
            )
        )
    steps = torch.tensor([-1.0, 0.0, 0.0, 0.5, 2.0])
    for right in (False, True):
        cases.append(
            _case(
                f"bucketize {right}",
                _number(lambda a, r=right: torch.bucketize(a.detach(), steps, right=r)),
                _special(7, 10) - 1,
                torch.ones(1),
            )
        )
        cases.append(
            _case(
                f"searchsorted {right}",
                _number(lambda a, b, r=right: torch.searchsorted(b.detach(), a.detach(), right=r)),
                x,
                _normal(7, 19).sort(1)[0],
                torch.ones(1),
            )
        )
    return [
        *cases,
        _case("topk", lambda a: a.topk(3)[0] * 2, x),
        _case("topk 0", lambda a: a.topk(3, 0)[0] * 2, x),
        _case("topk of most", lambda a: a.topk(9)[0] * a[:, 1:], x),
        _case(
            "topk of special values",
            _number(lambda a: a.detach().topk(5)[0].nan_to_num(5.0, 1e3, -1e3)),
            _special(7, 10),
            torch.ones(1),
        ),
        _case("topk smallest", lambda a: a.topk(4, largest=False)[0] * 2, x),
        _case("topk gate", lambda a: torch.softmax(a, 1).topk(2)[0].sum(1), x),
        _case("kthvalue", lambda a: a.kthvalue(3, 1)[0] * 2, x),
        _case("kthvalue 0", lambda a: a.kthvalue(2, 0, keepdim=True)[0] * a, x),
        _case("median of a dimension", lambda a: a.median(1)[0] * 2, x),
        _case("median keepdim", lambda a: a.median(0, keepdim=True)[0] * a, x),
        _case("median with NaN", lambda a: a.median(1)[0].nan_to_num(), _special(7, 10)),
        _case("nanmedian", lambda a: a.nanmedian(1)[0].nan_to_num(), _special(7, 10)),
        _case("median of all", _number(lambda a: a.detach().median()), x, torch.ones(1)),
        _case("msort", lambda a: a.msort() * 2, x),
        _case("sort of a view", lambda a: a.t()[::2].sort(0)[0], x),
        _case("sort of an expression", lambda a: a.exp().sort(1)[0] * a, x),
        _case(
            "searchsorted of all",
            _number(lambda a: torch.searchsorted(steps, a.detach(), out_int32=True)),
            x,
            torch.ones(1),
        ),
        _case("quantile", lambda a: a.quantile(torch.tensor(0.3), 1), x),
    ]
