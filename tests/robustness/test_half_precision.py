"""Models in half precision, and with parts of them in float32, train as in eager."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import batucada as bt

STEPS = 4


class Block(nn.Module):
    """A transformer's block: attention over four heads, and two layers behind it."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.joint, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.wide, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, size = x.shape
        parts = self.joint(self.before(x)).chunk(3, -1)
        q, k, v = (p.view(batch, length, 4, size // 4).transpose(1, 2) for p in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, size))
        return x + self.narrow(functional.gelu(self.wide(self.between(x))))


class Mixed(nn.Module):
    """Products in half precision, the rest in float32, as autocast would have it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.inner, self.norm, self.outer = nn.Linear(40, 64), nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.inner, self.outer):
            weight, bias = layer.weight.to(self.dtype), layer.bias.to(self.dtype)
            x = functional.linear(x.to(self.dtype), weight, bias).float()
            x = self.norm(x).relu() if layer is self.inner else x
        return x


def _made(name: str, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(4)
    if name == "mlp":
        body = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU())
        return nn.Sequential(body, nn.Linear(96, 10)).to(dtype), torch.randn(32, 40).to(dtype)
    if name == "convolutions":
        first = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        second = (nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = nn.Sequential(*first, *second, nn.Linear(12, 10))
        return model.to(dtype), torch.randn(8, 3, 12, 12).to(dtype)
    if name == "block":
        return Block().to(dtype), torch.randn(3, 12, 32).to(dtype)
    return Mixed(dtype), torch.randn(16, 40)


class Squared(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.model(x).float() - 1).square().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("name", ["mlp", "convolutions", "block", "mixed"])
def test_trains_as_in_eager(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    inner, x = _made(name, dtype)
    model = Squared(inner)
    eager = copy.deepcopy(model)
    named = (bt.NamedTensor("x", x),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    bt.compile(model, named, optimizers=[optimizer], path=tmp_path / "half.pef")
    program = bt.load(tmp_path / "half.pef")
    program.attach(model, named, optimizers=[optimizer])
    assert not program.manifest.host
    peer = torch.optim.SGD(eager.parameters(), lr=0.05)
    unit = 2.0**-8 if dtype is torch.bfloat16 else 2.0**-11
    for _ in range(STEPS):
        loss = program.run(["x"], [x])[0].tensor()
        peer.zero_grad()
        expected = eager(x)
        expected.backward()
        peer.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=4 * unit, atol=unit)
    program.to_host(model)
    for (path, ours), theirs in zip(model.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=4 * unit, atol=4 * unit, msg=path)
