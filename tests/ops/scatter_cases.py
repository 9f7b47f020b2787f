"""Values written at computed indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from tests.ops.against_eager import Case
from tests.ops.index_cases import below, case, integers, normal, number

_GENERATOR = torch.Generator().manual_seed(29)


def _apart(size: int, count: int, rows: int) -> torch.Tensor:
    """Each row `count` places below `size`, none of them twice."""
    return torch.stack([torch.randperm(size, generator=_GENERATOR)[:count] for _ in range(rows)])


def reduced() -> list[Case]:
    columns = _apart(10, 4, 7)
    scatter = [
        case(
            f"scatter_reduce {by} {keep}",
            lambda a, s, i, b=by, k=keep: a.scatter_reduce(1, i, s, b, include_self=k),
            normal(7, 10),
            normal(7, 4),
            columns,
        )
        for by in ("sum", "prod", "mean", "amax", "amin")
        for keep in (True, False)
    ]
    index = [
        case(
            f"index_reduce {by}",
            lambda a, s, b=by: a.index_reduce(0, torch.tensor([2, 0, 2]), s, b),
            normal(7, 10),
            normal(3, 10),
        )
        for by in ("mean", "amax", "amin")
    ]
    return scatter + index


def scatters() -> list[Case]:
    x, src, cube = normal(7, 10), normal(7, 10), normal(4, 5, 64)
    columns, rows, many = _apart(10, 4, 7), _apart(7, 3, 10).t(), below(10, 7, 10)
    return [
        *_scatters_of(torch.float64, torch.bfloat16, torch.int32, torch.int64),
        case("bincount", lambda a, i: a * torch.bincount(i, minlength=10), x, below(10, 30)),
        case(
            "bincount of weights",
            lambda a, i, w: a * torch.bincount(i, w.detach().half(), 10),
            x.double(),
            below(10, 30),
            normal(30),
        ),
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
    ]


def _scatters_of(*dtypes: torch.dtype) -> Iterator[Case]:
    columns, many, one = _apart(10, 4, 7), below(10, 7, 10), torch.ones(1)
    add = number(lambda a, b, i: a.scatter_add(1, i, b))
    assign = number(lambda a, b, i: a.scatter(1, i, b))
    for dtype in dtypes:
        a, b = integers(7, 10).to(dtype), integers(7, 10).to(dtype)
        yield case(f"scatter_add {dtype}", add, a, b, many, one)
        yield case(f"scatter {dtype}", assign, a, b[:, :4], columns, one)


def index_additions() -> list[Case]:
    x, cube = normal(7, 10), normal(4, 5, 64)
    return [
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
            "a histogram",
            lambda a, i: torch.zeros(10).index_add(0, i, a.exp()),
            normal(40),
            below(10, 40),
        ),
        case("a mean over edges", _edges, normal(6, 16), below(6, 2, 20)),
    ]


def index_assignments() -> list[Case]:
    x, cube = normal(7, 10), normal(4, 5, 64)
    return [
        case(
            "index_copy", lambda a, s: a.index_copy(1, torch.tensor([4, 0, 7]), s), x, normal(7, 3)
        ),
        case("index_fill", lambda a: a.index_fill(0, torch.tensor([4, -1]), 2.0), x),
        case(
            "index_put", lambda a, s: a.index_put((torch.tensor([4, -1, 0]),), s), x, normal(3, 10)
        ),
        case("x[:, i] = y", _assigned(torch.tensor([4, -1, 0])), x, normal(7, 3)),
        case(
            "x[known mask] = y",
            lambda a, s: a.index_put((torch.eye(7, 10) > 0,), s),
            x,
            normal(7),
        ),
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
