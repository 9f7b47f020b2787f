"""Running sums and extremes, sorting and searching."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.ops.against_eager import Case
from tests.ops.index_cases import below, case, integers, normal, number


def _special(*shape: int) -> torch.Tensor:
    """With ties, infinities and NaN."""
    x = below(5, *shape).float()
    x.view(-1)[::7], x.view(-1)[3::11], x.view(-1)[5::13] = torch.inf, -torch.inf, torch.nan
    return x


def _scans(name: str, shape: tuple[int, ...], dim: int) -> Case:
    function = getattr(torch, name)
    return case(f"{name} {shape} {dim}", lambda a: function(a, dim) * a, 0.5 * normal(*shape))


def scans() -> list[Case]:
    x = normal(7, 10)
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
            cases.append(case(f"{name} {dim}", lambda a, f=function, d=dim: f(a, d)[0], x))
            cases.append(
                case(
                    f"{name} of special values {dim}",
                    number(lambda a, f=function, d=dim: f(a.detach(), d)[1]),
                    _special(7, 10),
                    torch.ones(1),
                )
            )
    for dtype in (torch.float64, torch.bfloat16, torch.int32, torch.uint8, torch.bool):
        table = integers(7, 10).abs().to(dtype)
        cases.append(case(f"cumsum {dtype}", number(lambda a: a.cumsum(1)), table, torch.ones(1)))
    mask = normal(7, 10) > 0
    return [
        *cases,
        case("cumsum of a number", lambda a: a.sum().cumsum(0), x),
        case("cumsum to double", lambda a: a.cumsum(0, dtype=torch.float64).float(), x),
        case("cumsum of a view", lambda a: a.t().flip(0).cumsum(0), x),
        case("cumsum of an expression", lambda a: (a.exp() + 1).cumsum(1), x),
        case(
            "logcumsumexp of special values",
            lambda a: a.logcumsumexp(1).nan_to_num(),
            _special(7, 10)
            .nan_to_num(nan=-torch.inf, posinf=50.0, neginf=-torch.inf)
            .detach()
            .long()
            .float(),
        ),
        case("masked_scatter", lambda a, s, m: a.masked_scatter(m, s), x, normal(80), mask),
        case(
            "masked_scatter of rows",
            lambda a, s, m: a.masked_scatter(m, s),
            x,
            normal(9, 10),
            mask[:, :1],
        ),
    ]


def _sorts(shape: tuple[int, ...], dim: int, descending: bool) -> Case:
    def function(a: torch.Tensor) -> torch.Tensor:
        values, places = a.sort(stable=True, dim=dim, descending=descending)
        return values * (places + 1)

    return case(f"sort {shape} {dim} {descending}", function, normal(*shape))


def sorts() -> list[Case]:
    x = normal(7, 10)
    shapes = (
        ((7, 10), 0),
        ((7, 10), -1),
        ((3, 5, 33), 1),
        ((3, 4, 33), 2),
        ((130,), 0),
        ((1,), 0),
        ((4, 0), 1),
    )
    return [
        *(_sorts(shape, dim, way) for shape, dim in shapes for way in (False, True)),
        *_sorts_of(torch.float64, torch.bfloat16, torch.float16),
        *_sorts_of(torch.int64, torch.uint8, torch.bool),
        *(_special_argsort(dim, way) for dim in (0, 1) for way in (False, True)),
        case("msort", lambda a: a.msort() * 2, x),
        case("sort of a view", lambda a: a.t()[::2].sort(0)[0], x),
        case("sort of an expression", lambda a: a.exp().sort(1)[0] * a, x),
    ]


def _sorts_of(*dtypes: torch.dtype) -> Iterator[Case]:
    places = number(lambda a: a.sort(stable=True, dim=1)[1])
    for dtype in dtypes:
        table = integers(7, 10).abs().to(dtype)
        yield case(f"sort {dtype}", places, table, torch.ones(1))


def _special_argsort(dim: int, descending: bool) -> Case:
    places = number(lambda a: a.detach().argsort(stable=True, dim=dim, descending=descending))
    name = f"argsort of special values {dim} {descending}"
    return case(name, places, _special(17, 19), torch.ones(1))


def selections() -> list[Case]:
    x = normal(7, 10)
    return [
        case("topk", lambda a: a.topk(3)[0] * 2, x),
        case("topk 0", lambda a: a.topk(3, 0)[0] * 2, x),
        case("topk of most", lambda a: a.topk(9)[0] * a[:, 1:], x),
        case(
            "topk of special values",
            number(lambda a: a.detach().topk(5)[0].nan_to_num(5.0, 1e3, -1e3)),
            _special(7, 10),
            torch.ones(1),
        ),
        case("topk smallest", lambda a: a.topk(4, largest=False)[0] * 2, x),
        case("topk gate", lambda a: torch.softmax(a, 1).topk(2)[0].sum(1), x),
        case("kthvalue", lambda a: a.kthvalue(3, 1)[0] * 2, x),
        case("kthvalue 0", lambda a: a.kthvalue(2, 0, keepdim=True)[0] * a, x),
        case("median of a dimension", lambda a: a.median(1)[0] * 2, x),
        case("median keepdim", lambda a: a.median(0, keepdim=True)[0] * a, x),
        case("median with NaN", lambda a: a.median(1)[0].nan_to_num(), _special(7, 10)),
        case("nanmedian", lambda a: a.nanmedian(1)[0].nan_to_num(), _special(7, 10)),
        case("median of all", number(lambda a: a.detach().median()), x, torch.ones(1)),
        case("quantile", lambda a: a.quantile(torch.tensor(0.3), 1), x),
    ]


def searches() -> list[Case]:
    steps = torch.tensor([-1.0, 0.0, 0.0, 0.5, 2.0])
    return [
        case(
            "searchsorted of all",
            number(lambda a: torch.searchsorted(steps, a.detach(), out_int32=True)),
            normal(7, 10),
            torch.ones(1),
        ),
        *(find for right in (False, True) for find in _searches(steps, right)),
    ]


def _searches(steps: torch.Tensor, right: bool) -> Iterator[Case]:
    yield case(
        f"bucketize {right}",
        number(lambda a: torch.bucketize(a.detach(), steps, right=right)),
        _special(7, 10) - 1,
        torch.ones(1),
    )
    yield case(
        f"searchsorted {right}",
        number(lambda a, b: torch.searchsorted(b.detach(), a.detach(), right=right)),
        normal(7, 10),
        normal(7, 19).sort(1)[0],
        torch.ones(1),
    )
