"""Every pointwise activation of torch.nn, over shapes that do not fill vectors."""

from __future__ import annotations

import torch
from torch import nn

from tests.ops.against_eager import Case, Function

POINTWISE: tuple[nn.Module, ...] = (
    nn.ELU(0.7),
    nn.Hardshrink(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.5, 2),
    nn.Hardswish(),
    nn.LeakyReLU(0.2),
    nn.LogSigmoid(),
    nn.PReLU(),
    nn.ReLU(),
    nn.ReLU6(),
    nn.RReLU().eval(),
    nn.SELU(),
    nn.CELU(1.3),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Sigmoid(),
    nn.SiLU(),
    nn.Mish(),
    nn.Softplus(),
    nn.Softplus(2, 1),
    nn.Softshrink(),
    nn.Softsign(),
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Threshold(0.1, 20),
    nn.Dropout(0.0),
    nn.Dropout().eval(),
)

SHAPES = ((7, 10), (1,), (33,), (1, 7), (3, 1, 5), (0, 4), ())

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    3.0,
    -3.0,
    1e-30,
    1e4,
    -1e4,
    float("inf"),
    -float("inf"),
    float("nan"),
)


def pointwise(shape: tuple[int, ...]) -> list[Case]:
    generator = torch.Generator().manual_seed(sum(shape))
    return [
        Case(f"{module} {shape}", module, (2 * torch.randn(shape, generator=generator),))
        for module in POINTWISE
    ]


def special_values() -> list[Case]:
    """Infinities, NaN, zeros of both signs and large values.

    GELU of infinity is left out: where PyTorch takes oneDNN's (with AVX-512), it is not a number.
    """
    values = torch.tensor(SPECIAL)
    return [
        Case(f"{m}", m, (values[~values.isposinf()] if isinstance(m, nn.GELU) else values,))
        for m in POINTWISE
    ]


def over_a_dimension() -> list[Case]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((7, 10), (1, 33), (33, 1), (2, 6, 4))
    modules = (nn.Softmax, nn.Softmin, nn.LogSoftmax)
    cases = [
        Case(
            f"{module.__name__}({dim}) {shape}",
            module(dim),
            (torch.randn(shape, generator=generator),),
        )
        for shape in shapes
        for dim in range(-1, len(shape))
        for module in modules
    ]
    x = torch.randn(2, 6, 4, generator=generator)
    cases += [Case(f"GLU({dim})", nn.GLU(dim), (x,)) for dim in (0, 1, 2, -1)]
    cases.append(Case("Softmax2d", nn.Softmax2d(), (torch.randn(2, 3, 4, 5, generator=generator),)))
    cases.append(
        Case(
            "Softmax of large values",
            nn.Softmax(1),
            (1000 * torch.randn(7, 10, generator=generator),),
        )
    )
    rows = torch.randn(3, 5, generator=generator)
    rows[1] = -torch.inf
    safe = Function(lambda y: torch.ops.aten._safe_softmax(y, -1))
    cases.append(Case("softmax of rows without weight", safe, (rows,)))
    cases.append(Case("PReLU(6)", nn.PReLU(6), (x,)))
    return cases
