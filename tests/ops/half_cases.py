"""Half precision: stored in two bytes, computed in f32, rounded at the end of each operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(31)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
_UNITS = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def _case(
    dtype: torch.dtype, name: str, function: Callable[..., Any], *shapes: tuple[int, ...]
) -> Case:
    """Eager rounds between the operators that are one here, and so a few units apart."""
    tensors = tuple(torch.randn(shape, generator=_GENERATOR).to(dtype) for shape in shapes)
    module = function.to(dtype) if isinstance(function, nn.Module) else Function(function)
    return Case(name, module, tensors, 4 * _UNITS[dtype], 4 * _UNITS[dtype])


def _sampled(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """At places that eager, which computes them in two bytes, has exactly."""
    return functional.grid_sample(x, (grid * 4).round() / 8, align_corners=False)


def sums_and_products(dtype: torch.dtype) -> list[Case]:
    def case(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> Case:
        return _case(dtype, name, function, *shapes)

    return [
        case("mm", torch.mm, (7, 300), (300, 9)),
        case("mm turned", lambda a, b: a.t() @ b.t(), (300, 7), (9, 300)),
        case("mm of many rows", torch.mm, (40, 70), (70, 80)),
        case("mm of many rows turned", lambda a, b: a @ b.t(), (40, 70), (80, 70)),
        case("bmm", torch.bmm, (3, 5, 40), (3, 40, 6)),
        case("one row", torch.mm, (1, 500), (500, 10)),
        case("one row turned", lambda a, b: a @ b.t(), (1, 500), (10, 500)),
        case("Linear", nn.Linear(70, 33), (5, 70)),
        case("Conv2d", nn.Conv2d(3, 8, 3, padding=1), (2, 3, 9, 9)),
        case("Conv2d in groups", nn.Conv2d(4, 8, 3, groups=2), (2, 4, 7, 7)),
        case("ConvTranspose2d", nn.ConvTranspose2d(4, 3, 2, 2), (2, 4, 5, 5)),
        case("sum", lambda x: x.sum(1), (5, 1000)),
        case("sum of all", torch.sum, (40, 50)),
        case("mean", lambda x: x.mean(0), (1000, 5)),
        case("var", lambda x: x.var(1), (5, 1000)),
        case("softmax", lambda x: x.softmax(-1), (5, 300)),
        case("log_softmax", lambda x: x.log_softmax(0), (300, 5)),
        case("LayerNorm", nn.LayerNorm(100), (5, 100)),
        case("GroupNorm", nn.GroupNorm(2, 6), (4, 6, 20)),
        case("BatchNorm", nn.BatchNorm2d(6), (4, 6, 5, 5)),
        case("avg_pool", lambda x: functional.avg_pool2d(x, 3), (2, 3, 9, 9)),
        case("gelu", functional.gelu, (5, 100)),
        case("grid_sample", _sampled, (2, 3, 8, 4), (2, 4, 4, 2)),
        case("grid_sample of volumes", _sampled, (2, 3, 4, 2, 8), (2, 2, 3, 2, 3)),
        case("autocast", lambda x, w: (x.float() @ w.float()).softmax(-1) @ w.float(), (8, 8),
             (8, 8)),
    ]  # fmt: skip
