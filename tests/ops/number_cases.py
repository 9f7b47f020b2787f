"""Numbers that a function reads of its tensors, and computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.ops.against_eager import Case, Function

Tensor = torch.Tensor


def _pad(x: Tensor, value: Any) -> Tensor:
    return torch.where(x > 0, x, value).masked_fill(x > 1, value)


def _assigned(x: Tensor, value: Any) -> Tensor:
    out = (x * 1).mul_(value)
    out[0] = value
    return out + torch.empty(4).fill_(value) + torch.tensor(value)


def _checked(x: Tensor) -> Tensor:
    least = x.abs().min().item()
    assert least >= 0, f"{least:.3f} is negative"
    if least < 0:
        raise ValueError(f"negative: {least}")
    return x * least


def numbers() -> list[Case]:
    functions: dict[str, Callable[[Tensor], Any]] = {
        "product": lambda x: x * x.detach().sum().item(),
        "of a half": lambda x: x * x.half().max().item(),
        "quotients": lambda x: x / x.abs().max().item() + x.mean().item() / x.exp(),
        "differences": lambda x: x.mean().item() - (x - x.amax().item()),
        "arithmetic": lambda x: x * ((2 * x.sum().item() + 1) / 3 - abs(x[0, 0].item()) ** 2),
        "of integers": lambda x: x * (-(x > 0).sum().item() % 5 + x.argmax().item() // 2),
        "a mean": lambda x: x.relu().sum() / (x > 0).sum().item(),
        "true division": lambda x: x * ((x > 0).sum().item() / x.argmax().add(1).item()),
        "power": lambda x: x * x.detach().abs() ** x.mean().exp().item(),
        "clamp": lambda x: x.clamp(x.mean().item() - 0.5, 0.7),
        "comparison": lambda x: x * (x > x.mean().item()),
        "full": lambda x: x * torch.full((4,), x.mean().item()),
        "full of integers": lambda x: x * x.new_full((4,), (x > 0).sum().item()),
        "integers and a float": lambda x: x + (x * 3).long() * x.mean().item(),
        "added": lambda x: x + torch.add(x.detach(), x.detach(), alpha=x.mean().item()),
        "greater": lambda x: x * torch.sym_max(x.mean().item(), 0.1),
        "padding": lambda x: _pad(x, x.mean().item()),
        "assignment": lambda x: _assigned(x, x.mean().item()),
        "complex": lambda x: (torch.complex(x, -x) * x.sum().item()).abs(),
        "checked": _checked,
    }  # fmt: skip
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    return [Case(name, Function(function), (x,)) for name, function in functions.items()]
