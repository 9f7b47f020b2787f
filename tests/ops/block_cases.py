"""What multilayer perceptrons are built from: layers, reductions, views, arithmetic, products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(11)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _unit(*shape: int) -> torch.Tensor:
    return 0.8 * torch.rand(shape, generator=_GENERATOR) + 0.1


def _case(name: str, function: Callable[..., Any], *tensors: torch.Tensor) -> Case:
    module = function if isinstance(function, nn.Module) else Function(function)
    return Case(name, module, tensors)


class Observed(nn.Module):
    """What quantisation-aware training does to an activation, or to each row of a weight."""

    on: torch.Tensor
    least: torch.Tensor
    greatest: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, rows: bool) -> None:
        super().__init__()
        shape = (7,) if rows else ()
        self.rows = rows
        self.register_buffer("on", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("least", torch.full(shape, -0.3 if rows else torch.inf))
        self.register_buffer("greatest", torch.full(shape, 0.4 if rows else -torch.inf))
        self.register_buffer("scale", torch.ones(shape or 1))
        self.register_buffer("zero", torch.zeros(shape or 1, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = (-128, 127) if self.rows else (0, 255)
        return torch.fused_moving_avg_obs_fake_quant(
            x, self.on, self.on, self.least, self.greatest, self.scale, self.zero, 0.01, low, high,
            0, self.rows, self.rows,
        )  # fmt: skip


def layers() -> list[Case]:
    norm = nn.BatchNorm1d(10)
    with torch.no_grad():
        norm.running_mean.copy_(_normal(10))  # type: ignore[union-attr]
        norm.running_var.copy_(_unit(10))  # type: ignore[union-attr]
    cases = [_case("BatchNorm1d eval", norm.eval(), _normal(7, 10))]
    for shape in ((33,), (1, 33), (7, 33), (2, 3, 33), (2, 1, 3, 33), (0, 33)):
        cases.append(_case(f"Linear {shape}", nn.Linear(33, 10), _normal(*shape)))
    for shape in ((1, 33), (7, 33), (2, 3, 33), (0, 33)):
        cases.append(_case(f"Linear to 1 {shape}", nn.Linear(33, 1, bias=False), _normal(*shape)))
    block = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    return [
        *cases,
        Case("observed", Observed(False), (_normal(7, 10),)),
        Case("observed rows", Observed(True), (_normal(7, 10),)),
        _case("residual", lambda x: x + torch.tanh(x) * x, _normal(7, 10)),
        _case("block", block, _normal(7, 10)),
        _case("from 1 feature", nn.Linear(1, 10), _normal(7, 1)),
        _case("Bilinear", nn.Bilinear(5, 6, 7), _normal(3, 5), _normal(3, 6)),
        _case("LayerNorm", nn.LayerNorm(10), _normal(7, 10)),
        _case("LayerNorm 2-d", nn.LayerNorm([3, 10]), _normal(7, 3, 10)),
        _case("LayerNorm plain", nn.LayerNorm(33, elementwise_affine=False), _normal(7, 33)),
        _case("RMSNorm", nn.RMSNorm(10), _normal(7, 10)),
        _case("BatchNorm1d train", nn.BatchNorm1d(10), _normal(7, 10)),
        _case("BatchNorm1d positions", nn.BatchNorm1d(3).eval(), _normal(2, 3, 5)),
        _case("GroupNorm", nn.GroupNorm(2, 10), _normal(7, 10)),
        _case("Flatten", nn.Flatten(), _normal(3, 4, 5)),
        _case("Unflatten", nn.Unflatten(1, (2, 5)), _normal(3, 10)),
        _case("Identity", nn.Identity(), _normal(3, 10)),
        _case("normalize", functional.normalize, _normal(7, 10)),
        _case("CosineSimilarity", nn.CosineSimilarity(), _normal(7, 10), _normal(7, 10)),
        _case("PairwiseDistance", nn.PairwiseDistance(), _normal(7, 10), _normal(7, 10)),
        _case("Embedding", nn.Embedding(10, 4), torch.tensor([[1, 9, 1], [0, 3, 3]])),
    ]


def reductions() -> list[Case]:
    cases = []
    for name in (
        "mean",
        "sum",
        "amax",
        "amin",
        "var",
        "std",
        "logsumexp",
        "norm",
        "prod",
        "cumsum",
    ):
        for dim in (0, -1):
            function = getattr(torch, name)
            cases.append(
                _case(f"{name} {dim}", lambda x, f=function, d=dim: f(x, dim=d), _normal(7, 10))
            )
    for name in ("mean", "sum", "amax", "var", "max", "min", "prod"):
        cases.append(_case(f"{name} of all", getattr(torch, name), _normal(7, 10)))
    for shape in ((1,), (33,), (1, 1), (33, 1), (1, 33), (2, 1, 3), (5, 130)):
        cases.append(_case(f"sum {shape}", lambda x: x.sum(-1), _normal(*shape)))
        cases.append(_case(f"mean {shape}", lambda x: x.mean(0), _normal(*shape)))
        cases.append(
            _case(f"centred {shape}", lambda x: x - x.mean(-1, keepdim=True), _normal(*shape))
        )
    return [
        *cases,
        _case("max 1", lambda x: x.max(1).values, _normal(7, 10)),
        _case("min 0", lambda x: x.min(0).values, _normal(7, 10)),
        _case("max of ties", lambda x: x.max(1).values, torch.ones(3, 4)),
        _case("amax of ties", lambda x: x.amax(1), torch.ones(3, 4)),
        _case("sum of none", lambda x: x.sum(0), _normal(0, 4)),
        _case("sum of 2 dims", lambda x: x.sum((0, 2)), _normal(3, 4, 5)),
        _case("mean of outer dims", lambda x: x.mean((0, 1)), _normal(3, 4, 5)),
        _case("argmax", lambda x: x.argmax(1).float() + x.sum(1), _normal(7, 10)),
        _case("mean of squares", lambda x: (x * x).mean(1).sqrt(), _normal(7, 33)),
    ]


def views() -> list[Case]:
    x = _normal(7, 10)
    return [
        _case("cat 1", lambda a, b: torch.cat([a, 2 * b], 1), _normal(7, 3), _normal(7, 5)),
        _case("cat 0", lambda a, b: torch.cat([a, b]), _normal(1, 5), _normal(7, 5)),
        _case(
            "cat with an empty one", lambda a, b: torch.cat([a, b]), _normal(0, 5), _normal(7, 5)
        ),
        _case("stack 1", lambda a, b: torch.stack([a, b], 1), _normal(7, 3), _normal(7, 3)),
        _case("stack -1", lambda a, b: torch.stack([a, b], -1), _normal(7, 3), _normal(7, 3)),
        _case("split", lambda a: a.split(3, 1)[0] * a.split(3, 1)[1], x),
        _case("split sizes", lambda a: a.split([2, 2, 6], 1)[0] + a.split([2, 2, 6], 1)[1], x),
        _case("chunk", lambda a: a.chunk(2, 1)[0] * a.chunk(2, 1)[1], x),
        _case("unbind", lambda a: a.unbind(1)[2], x),
        _case("slice", lambda a: a[2:5, :3], x),
        _case("slice with steps", lambda a: a[1:6:2, ::3], x),
        _case("select", lambda a: a[..., -1] * a[:, 0], x),
        _case("index by a tensor", lambda a, i: a[i], x, torch.tensor([0, -1, 3, 3])),
        _case("gather", lambda a, i: a.gather(1, i), x, torch.arange(14).reshape(7, 2) % 10),
        _case("flip", lambda a: a.flip(1) * 2, x),
        _case("roll", lambda a: a.roll((2, -3), (0, 1)), x),
        _case("roll flat", lambda a: a.roll(3), x),
        _case("pad", lambda a: functional.pad(a, (1, 2)), x),
        _case("repeat", lambda a: a.repeat(2, 3), x),
        _case("repeat_interleave", lambda a: a.repeat_interleave(2, 1), x),
        _case("tril", torch.tril, x),
        _case("triu", lambda a: a.triu(1) + a.triu(-2), x),
        _case("tril of a mask", lambda a: (a > 0).tril(-1) * a, x),
        _case("permute", lambda a: a.permute(2, 0, 1) * 2, _normal(2, 3, 4)),
        _case("reshape after transpose", lambda a: a.t().reshape(5, 14) * 2, x),
        _case("expand", lambda a: a.expand(7, 10) * 1.5, _normal(7, 1)),
        _case("squeeze, unsqueeze", lambda a: a.squeeze(1).unsqueeze(0), _normal(7, 1, 3)),
        _case("one_hot", lambda a, i: functional.one_hot(i, 10).float() * a, x, torch.arange(7)),
    ]


_ANY = "abs neg exp sin cos atan sinh tanh asinh erf erfc floor ceil round sign square expm1 exp2"
_OPEN_UNIT = (
    "asin acos atanh logit log log2 log10 log1p sqrt rsqrt reciprocal tan cosh trunc frac sinc"
)
_PAIRS = "add sub mul div maximum minimum atan2 fmod remainder fmax fmin logaddexp"


def arithmetic() -> list[Case]:
    cases = [_case(name, getattr(torch, name), _normal(7, 10)) for name in _ANY.split()]
    cases += [_case(name, getattr(torch, name), _unit(33)) for name in _OPEN_UNIT.split()]
    for name in _PAIRS.split():
        function = getattr(torch, name)
        cases.append(_case(name, function, _normal(7, 10), _unit(7, 10)))
        cases.append(_case(f"{name} broadcast", function, _normal(7, 1), _unit(10)))
    for power in (0, 1, 2, 3, 4, 0.5, -1, -2, 2.5):
        cases.append(_case(f"pow {power}", lambda a, p=power: a**p, _unit(7, 10)))
    x, y, z = _normal(7, 10), _normal(7, 10), _normal(7, 10)
    scales, zeros = _unit(10) / 20, torch.zeros(10, dtype=torch.int32)
    return [
        _case(
            "fake_quantize",
            lambda x: torch.fake_quantize_per_tensor_affine(x, 0.03, 99, 51, 140),
            _normal(7, 10),
        ),
        _case(
            "fake_quantize of channels",
            lambda x: torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -30, 30),
            _normal(7, 10),
        ),
        *cases,
        _case("acosh", torch.acosh, 1 + _unit(10)),
        _case("xlogy", torch.xlogy, _unit(7, 10), _unit(7, 10)),
        _case("pow of tensors", torch.pow, _unit(7, 10), x),
        _case("power of 2", lambda a: 2**a, x),
        _case("where", lambda a, b: torch.where(a > 0, a, b), x, y),
        _case("clamp", lambda a: a.clamp(-0.5, 0.5), x),
        _case("clamp from below", lambda a: a.clamp(min=0.1), x),
        _case("clamp by tensors", lambda a, b: a.clamp(b - 1, b + 1), x, y),
        _case("lerp", torch.lerp, x, y, _unit(7, 10)),
        _case("lerp by a number", lambda a, b: torch.lerp(a, b, 0.3), x, y),
        _case("addcmul", lambda a, b, c: torch.addcmul(a, b, c, value=0.3), x, y, z),
        _case("addcdiv", lambda a, b, c: torch.addcdiv(a, b, c.abs() + 1, value=0.3), x, y, z),
        _case("masked_fill", lambda a: a.masked_fill(a > 0, 2.0), x),
        _case("nan_to_num", torch.nan_to_num, x),
        _case("logical", lambda a: a * ((a > 0) & ~(a > 1)).float(), x),
        _case("through int and double", lambda a: a * a.int().float() + a.double().float(), x),
        _case("in place on a temporary", lambda a: (a * 2).relu_() + 1, x),
        _case("value used twice", lambda a: (a.exp() + 1) * a.exp(), x),
    ]


def _large(name: str, function: Callable[..., torch.Tensor], *shapes: tuple[int, int]) -> Case:
    """A sum of hundreds of terms: it is off by more than its own rounding."""
    return Case(name, Function(function), tuple(_normal(*s) for s in shapes), 1e-4, 5e-5)


def products() -> list[Case]:
    return [
        _case("mm", torch.mm, _normal(7, 10), _normal(10, 33)),
        _case("mm, right turned", lambda a, b: a @ b.t(), _normal(7, 10), _normal(33, 10)),
        _case("mm, left turned", lambda a, b: a.t() @ b, _normal(10, 7), _normal(10, 33)),
        _case("mm, both turned", lambda a, b: a.t() @ b.t(), _normal(7, 10), _normal(33, 7)),
        _large("mm, large", torch.mm, (50, 300), (300, 130)),
        _large("mm, large, right turned", lambda a, b: a @ b.t(), (27, 257), (129, 257)),
        _large("mm, large, left turned", lambda a, b: a.t() @ b, (300, 200), (300, 70)),
        _case("mm of sizes 1", torch.mm, _normal(1, 1), _normal(1, 1)),
        _case("mm over 1", torch.mm, _normal(33, 1), _normal(1, 10)),
        _case("mm over nothing", torch.mm, _normal(3, 0), _normal(0, 2)),
        _case("bmm", torch.bmm, _normal(3, 7, 10), _normal(3, 10, 5)),
        _case("mv", torch.mv, _normal(7, 10), _normal(10)),
        _case("dot", torch.dot, _normal(33), _normal(33)),
        _case("outer", torch.outer, _normal(7), _normal(5)),
        _case("matmul broadcast", torch.matmul, _normal(2, 1, 7, 10), _normal(3, 10, 5)),
        _case("baddbmm", torch.baddbmm, _normal(3, 7, 5), _normal(3, 7, 10), _normal(3, 10, 5)),
        _case(
            "einsum", lambda a, b: torch.einsum("bi,bj->bij", a, b), _normal(7, 3), _normal(7, 4)
        ),
        _case("of a sum", lambda a, b: (a + 1) @ (b * 2), _normal(7, 10), _normal(10, 5)),
        _case("twice", lambda a, b: a @ b @ b, _normal(7, 10), _normal(10, 10)),
        _case("with a square", lambda a: a @ a.t(), _normal(7, 10)),
        _case(
            "attention",
            lambda q: functional.scaled_dot_product_attention(q, q, q),
            _normal(2, 3, 4, 8),
        ),
    ]
