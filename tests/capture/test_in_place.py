"""Tensors changed in place, through views and aliases, beside eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.errors import CaptureError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def column(h: torch.Tensor) -> torch.Tensor:
    out = h * 1
    out[:, 2] = h[:, 0] * 3
    return out


def block(h: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(h)
    out[1:3, 1:5:2] = h[:2, :2] ** 2
    out[0] += h[0]
    return out


def seen_from_the_view(h: torch.Tensor) -> torch.Tensor:
    out = h * 1
    turned = out.t()
    out.mul_(2)
    turned[1].add_(1)
    return out + turned.sum()


def aliases(h: torch.Tensor) -> torch.Tensor:
    out = h * 1
    flat = out.view(-1)
    rows = [out[i] for i in range(4)]
    flat[5:9] = 0
    right = out.narrow(1, 2, 4)
    out[3].mul_(h[0])
    out.narrow(1, 0, 2).copy_(rows[2][:2] + h[:, :2])
    return out + flat.view(4, 6) + right.mean()


def diagonal(h: torch.Tensor) -> torch.Tensor:
    out = h @ h.t()
    out.diagonal().add_(1)
    out.diagonal(1).fill_(3)
    out.diagonal(-2)[0] = h[0, 0]
    return out


def masked(h: torch.Tensor) -> torch.Tensor:
    out = h * 1
    out[h > 0.5] = 2.0
    return out.masked_fill_(h < -0.5, 0)


def in_a_loop(h: torch.Tensor) -> torch.Tensor:
    total = h.new_zeros(4)
    for i in range(6):
        total += h[:, i] * (i + 1)
    return h * total[:, None]


def squeezed(h: torch.Tensor) -> torch.Tensor:
    out = (h * 2).unsqueeze_(0)
    out.squeeze_(0)
    out.transpose_(0, 1).transpose_(0, 1)
    out[..., -1] -= 1
    return out


def turned_in_place(h: torch.Tensor) -> torch.Tensor:
    """Gradients of what is changed in memory that is not in the order of its dimensions."""
    out = h * 2
    out.t_()
    out[1:3, ::2].mul_(h[:2, :2])
    return out


def turned_views(h: torch.Tensor) -> torch.Tensor:
    out = h * 2
    row, turned, column = out[0], out[:2], out[:, 1]
    row.unsqueeze_(0).mul_(3)
    turned.transpose_(0, 1)[0] = 1
    out.t_()
    column.add_(out[2])
    return out.t() + row + column[:, None] + turned.sum()


def resized(h: torch.Tensor) -> torch.Tensor:
    grown = torch.empty(0).resize_(4, 6).copy_(h)
    shrunk = (h * 3).detach().resize_(2, 6)
    seen = shrunk.view(-1).resize_(6, 2)
    seen[5] = 4
    return grown + shrunk.repeat(2, 1)


def with_out(h: torch.Tensor) -> torch.Tensor:
    """Operators of each way: a kernel, a decomposition, several results, PyTorch's own."""
    given = h.detach()
    total, product = torch.empty(4, 6), torch.empty(0)
    torch.add(given, given.flip(0), alpha=2, out=total)
    torch.mm(given, given.t(), out=product)
    values, places = torch.empty(4, 6), torch.empty(4, 6, dtype=torch.long)
    torch.sort(given, 1, out=(values, places))
    inverse = torch.linalg.inv(product + 8 * torch.eye(4), out=torch.empty(4, 4))
    torch.sigmoid(total[0], out=values[1])
    torch.matmul(torch.complex(given, total), torch.ones(6, 6) + 1j, out=(c := torch.empty(0) + 0j))
    return h * (total + inverse @ values + places + c.abs())


def nothing_dropped(h: torch.Tensor) -> torch.Tensor:
    """Nothing changes, so the gradient of the softmax may read what it gave."""
    return torch.dropout_(torch.softmax(h, -1), 0.0, True) * h


def eigenvectors(h: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigh(h @ h.t() + torch.diag(torch.arange(4.0)))[0]


class Model(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 6)
        self.function = function

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.function(torch.tanh(self.layer(x)))
        return (out**2).mean(), out


@pytest.mark.parametrize(
    "function",
    [column, block, seen_from_the_view, aliases, diagonal, masked, in_a_loop, squeezed,
     turned_in_place, turned_views, resized, with_out, nothing_dropped, eigenvectors],
)  # fmt: skip
def test_as_eager(function: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    model = Model(function)
    inputs = (bt.NamedTensor("x", X),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "m.pef"
    bt.compile(model, inputs, optimizers=[optimizer], path=path, options=bt.Options(oracle=True))
    program = bt.load(path)
    program.attach(model, inputs, optimizers=[optimizer])
    loss, out = (result.tensor() for result in program.run(["x"], [X]))
    expected, eager = model(X)
    expected.backward()
    torch.testing.assert_close(out, eager.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, expected.detach())
    gradient = program.gradient(bt.symbol_name(model, "layer.weight"))
    torch.testing.assert_close(gradient, model.layer.weight.grad, rtol=1e-4, atol=1e-5)


class RunningMean(nn.Module):
    """A buffer of which a part is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(2, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        self.mean[0].mul_(0.9).add_(0.1 * out.detach().mean(0))
        return out.mean()


def test_a_part_of_a_buffer(tmp_path: Path) -> None:
    model = RunningMean()
    inputs = (bt.NamedTensor("x", X),)
    path = tmp_path / "m.pef"
    bt.compile(model, inputs, path=path)
    program = bt.load(path)
    program.attach(model, inputs)
    for _ in range(2):
        program.run(["x"], [X])
        model(X)
    torch.testing.assert_close(program.read(bt.symbol_name(model, "mean")), model.mean)


class ChangesParameters(nn.Module):
    """By itself: rows of a table, the bounds of a weight, and one that no optimizer holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 6, max_norm=0.8)
        self.layer = nn.Linear(6, 6)
        self.mean = nn.Parameter(torch.zeros(6), requires_grad=False)

    def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        self.layer.weight.data.clamp_(-0.3, 0.3)
        out = self.layer(x) * self.table(rows) + self.mean
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * out.mean(0))
        return (out**2).mean()


@pytest.mark.parametrize("sections", [None, ("fwd", "bckwd", "opt")])
def test_parameters(sections: tuple[str, ...] | None, tmp_path: Path) -> None:
    model, rows = ChangesParameters(), torch.tensor([1, 4, 1, 0])
    inputs = (bt.NamedTensor("x", X), bt.NamedTensor("rows", rows))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    path = tmp_path / "m.pef"
    options = bt.Options(oracle=True, checked=True)
    bt.compile(model, inputs, optimizers=[optimizer], path=path, options=options)
    program = bt.load(path, options)
    program.attach(model, inputs, optimizers=[optimizer])
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(X, rows)
        loss.backward()
        optimizer.step()
        for part in [sections] if sections is None else [[name] for name in sections]:
            results = program.run(["x", "rows"], [X, rows], part)
        if sections is None:
            torch.testing.assert_close(results[0].tensor(), loss.detach())
    for name, parameter in model.named_parameters():
        found = program.read(bt.symbol_name(model, name))
        torch.testing.assert_close(found, parameter.detach(), rtol=1e-4, atol=1e-5, msg=name)
    assert not program.manifest.host


def test_parameters_of_replicas(tmp_path: Path) -> None:
    model, rows = ChangesParameters(), torch.tensor([1, 4, 1, 0])
    inputs = (bt.NamedTensor("x", X), bt.NamedTensor("rows", rows))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = bt.Options(data_parallel=True)
    with pytest.raises(CaptureError, match="in place, each replica in its own way"):
        bt.compile(model, inputs, optimizers=[optimizer], path=tmp_path / "m.pef", options=options)
