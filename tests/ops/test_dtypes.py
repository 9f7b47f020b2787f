"""Every pointwise operator and reduction over the dtypes that PyTorch takes it for: results of the
same dtype and value, at zeros of both signs, limits, infinities and NaN, every value against every
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batucada as bt

UNARY = """
    abs neg sign sgn floor ceil round trunc sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10
    log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv lgamma digamma
    logical_not bitwise_not isnan isinf isfinite sigmoid relu square frac deg2rad rad2deg isposinf
    isneginf positive nan_to_num sinc logit angle conj_physical
""".split()
BINARY = """
    add sub mul div floor_divide remainder fmod pow maximum minimum fmax fmin atan2 bitwise_and
    bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift eq ne lt le gt ge logical_and
    logical_or logical_xor hypot heaviside logaddexp logaddexp2 xlogy ldexp
""".split()
REDUCTIONS = """
    sum nansum mean prod amax amin any all argmax argmin std var logsumexp count_nonzero cumsum
    cumprod
""".split()
UNARY_BY_PYTORCH = """
    i0 special.erfcx special.i0e special.i1 special.i1e special.ndtri special.bessel_j0
    special.bessel_j1 special.spherical_bessel_j0
""".split()
BINARY_BY_PYTORCH = ["igamma", "igammac", "nextafter", "gcd"]
"""Those without a kernel of ours: host stages."""

TOLERANCES = {torch.float64: 1e-7, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
DTYPES = [
    *TOLERANCES, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip

Operator = Callable[..., Tensor]


def values(dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:
        return torch.tensor([True, False, True, True, False])
    if dtype.is_floating_point:
        special = [0.0, -0.0, float("inf"), -float("inf"), float("nan")]
        plain = [1, -1, 0.5, -2.5, 3.7, 1e-3, 100, -7.25, 2, 0.99]
        return torch.tensor([*special, *plain]).to(dtype)
    low = torch.iinfo(dtype).min
    return torch.tensor([0, 1, 2, 3, 5, 7, 100, max(low, -7), max(low, -1)]).to(dtype)


class Every(nn.Module):
    """x [N, 1] and y [N] -> every operator's result, [N, 1] or [N, N]."""

    def __init__(self, operators: Sequence[tuple[str, Operator, int]]) -> None:
        super().__init__()
        self.operators = operators

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [f(x) if arity == 1 else f(x, y) for _, f, arity in self.operators]


def taken(
    names: Sequence[str], arity: int, x: Tensor, y: Tensor
) -> list[tuple[str, Operator, int]]:
    """The operators that PyTorch has for these arguments."""
    found = []
    for name in names:
        operator: Any = torch
        for part in name.split("."):
            operator = getattr(operator, part)
        try:
            operator(x) if arity == 1 else operator(x, y)
        except RuntimeError:
            continue
        found.append((name, operator, arity))
    return found


def compared(
    operators: Sequence[tuple[str, Operator, int]], x: Tensor, y: Tensor, path: Path
) -> list[str]:
    """The operators that run in PyTorch; AssertionError names those whose results differ."""
    model, inputs = Every(operators), (bt.NamedTensor("x", x), bt.NamedTensor("y", y))
    bt.compile(model, inputs, path=path)
    program = bt.load(path)
    program.attach(model, inputs)
    results = program.run(["x", "y"], [x, y])
    wrong = []
    for (name, _, _), result, expected in zip(operators, results, model(x, y), strict=True):
        tolerance = TOLERANCES.get(expected.dtype, 0)
        try:
            torch.testing.assert_close(
                result.tensor(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
            )
        except AssertionError as error:
            wrong.append(f"{name} of {x.dtype}: {error}")
    assert not wrong, "\n".join(wrong)
    return [record.target for record in program.manifest.host.values()]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_native_operators(dtype: torch.dtype, tmp_path: Path) -> None:
    y = values(dtype)
    x = y[:, None].clone()
    operators = taken(UNARY, 1, x, y) + taken(BINARY, 2, x, y)
    assert compared(operators, x, y, tmp_path / "native.pef") == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions(dtype: torch.dtype, tmp_path: Path) -> None:
    """Along rows of special values, of plain ones, of zeros, and of one element."""
    y = values(dtype)
    x = torch.stack([y, y.flip(0), torch.where(y == y, y, 1), torch.zeros_like(y)])

    def along(name: str, dim: int) -> Operator:
        return lambda x: getattr(torch, name)(x, dim)

    operators = []
    for name in REDUCTIONS:
        for dim in (0, 1):
            try:
                along(name, dim)(x)
            except RuntimeError:
                continue
            operators.append((f"{name} {dim}", along(name, dim), 1))
    assert len(operators) >= 2 * 10
    assert compared(operators, x, y, tmp_path / "reductions.pef") == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_signs(dtype: torch.dtype, tmp_path: Path) -> None:
    y = values(dtype)
    y = y[y == y]
    x = y[:, None].clone()
    operators = taken(["signbit"], 1, x, y) + taken(["copysign"], 2, x, y)
    assert compared(operators, x, y, tmp_path / "signs.pef") == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_operators_that_pytorch_runs(dtype: torch.dtype, tmp_path: Path) -> None:
    y = values(dtype)
    x = y[:, None].clone()
    operators = taken(UNARY_BY_PYTORCH, 1, x, y) + taken(BINARY_BY_PYTORCH, 2, x, y)
    assert len(compared(operators, x, y, tmp_path / "host.pef")) >= len(operators) > 0
