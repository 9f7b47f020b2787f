"""Operators of control flow, marks for the profiler, and buffers that a model assigns.

Eager PyTorch would start its compiler for the operators: beside them stands what they mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import _higher_order_ops as control
from torch import nn
from torch._higher_order_ops import scan, while_loop

from tests.ops.against_eager import Case, Function

Tensor = torch.Tensor


def _branches(x: Tensor) -> Tensor:
    ways = (lambda y: y.tanh() * 2), (lambda y: y - 1)
    with torch.profiler.record_function("branches"):
        if not torch.compiler.is_compiling():
            return ways[0 if x.sum() > 0 else 1](x) + ways[0](x)
        return torch.cond(x.sum() > 0, *ways, (x,)) + torch.cond(x.shape[0] > 2, *ways, (x,))


def _loop(x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return x.tanh().tanh().tanh()
    start = torch.tensor(0), x
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y.tanh()), start)[1]


def _scan(x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        before = x[0] + torch.cat([torch.zeros_like(x[:1]), x.cumsum(0)[:-1]])
        return before * x + x[0] + x.sum(0)
    last, products = scan(lambda total, y: (total + y, total * y), x[0], x)
    return products + last


def _map(x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return x.tanh() * x[0]
    each: Any = control.map
    return each(lambda y, factor: y.tanh() * factor, x, x[0])


def _doubled(x: Tensor) -> Tensor:
    return x * 2 + x.relu()


class Assigned(nn.Module):
    """A running mean, the one before it, and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("before", torch.zeros(4))
        self.register_buffer("mean", torch.ones(4))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.before = self.mean
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.count = self.count + 1
        return x * self.mean - self.before * self.count


def cases() -> list[Case]:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(31))
    return [
        Case("cond", Function(_branches), (x - x.mean() + 0.1,)),
        Case("cond, other way", Function(_branches), (x - x.mean() - 0.1,)),
        Case("while_loop", Function(_loop), (x,)),
        Case("scan", Function(_scan), (x,)),
        Case("map", Function(_map), (x,)),
        Case("TorchScript", Function(torch.jit.script(_doubled)), (x,)),
        Case("assigned buffers", Assigned(), (x,)),
    ]
