"""Random trees of modules - nested, shared, called again, under two names, frozen, with weights of
others - train as in eager: every parameter and buffer has its place, whatever leads to it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import batucada as bt

WIDTH, BATCH, STEPS = 6, 5, 3


class Scales(nn.Module):
    """Weights in a list and a dict, and a buffer that counts its calls, unsaved."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ParameterList([torch.randn(WIDTH), torch.randn(WIDTH)])
        self.named = nn.ParameterDict({"shift": torch.randn(WIDTH)})
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.listed[0] + self.listed[1] * self.named["shift"] / self.calls.clone()


class Borrowing(nn.Module):
    """The weight of another module under a name of its own, turned."""

    def __init__(self, lender: nn.Linear) -> None:
        super().__init__()
        self.borrowed = lender.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.tanh(x @ self.borrowed)


class Branch(nn.Module):
    """Children in an order that may repeat some; the first has a second name."""

    def __init__(self, children: Sequence[nn.Module], order: Sequence[int], residual: bool) -> None:
        super().__init__()
        self.alias = children[0]
        self.items = nn.ModuleList(children)
        self.order, self.residual = order, residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index in self.order:
            y = self.items[index](y)
        return x + y if self.residual else F.layer_norm(y, (WIDTH,))


class Root(nn.Module):
    def __init__(self, inner: nn.Module, frozen: nn.Module) -> None:
        super().__init__()
        self.inner, self.frozen = inner, frozen
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.last(self.inner(x) + self.frozen(x)), label)


def _leaf(kind: str, lender: nn.Linear) -> nn.Module:
    match kind:
        case "linear":
            return nn.Linear(WIDTH, WIDTH)
        case "lender":
            return lender
        case "batch norm":
            return nn.BatchNorm1d(WIDTH)
        case "frozen":
            return nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        case "weight norm":
            return parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
        case "evaluated":
            return nn.BatchNorm1d(WIDTH).eval()
        case "borrowing":
            return Borrowing(lender)
        case _:
            return Scales()


KINDS = (
    "linear",
    "lender",
    "batch norm",
    "frozen",
    "weight norm",
    "evaluated",
    "borrowing",
    "scales",
)


@st.composite
def trees(draw: st.DrawFn) -> Root:
    """Modules made from the leaves up; each may be a child of several of those made later."""
    torch.manual_seed(draw(st.integers(0, 100)))
    lender = nn.Linear(WIDTH, WIDTH)
    made = [
        _leaf(kind, lender)
        for kind in draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=5))
    ]
    for _ in range(draw(st.integers(1, 3))):
        children = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
        order = draw(st.lists(st.integers(0, len(children) - 1), min_size=1, max_size=3))
        made.append(Branch(children, order, draw(st.booleans())))
    return Root(made[-1], draw(st.sampled_from(made)))


@settings(max_examples=6)
@given(trees())
def test_a_tree_of_modules_trains_as_in_eager(model: Root) -> None:
    eager = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, WIDTH, generator=generator)
    label = torch.randint(3, (BATCH,), generator=generator)
    inputs = (bt.NamedTensor("x", x), bt.NamedTensor("label", label))
    optimizer, eager_optimizer = (
        torch.optim.AdamW(of.parameters(), lr=0.01, eps=1e-3) for of in (model, eager)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pef"
        bt.compile(model, inputs, optimizers=[optimizer], path=path)
        program = bt.load(path)
    program.attach(model, inputs, optimizers=[optimizer])
    for _ in range(STEPS):
        loss = program.run(["x", "label"], [x, label])[0].tensor().clone()
        eager_optimizer.zero_grad()
        wanted = eager(x, label)
        wanted.backward()
        eager_optimizer.step()
        torch.testing.assert_close(loss, wanted.detach(), rtol=1e-4, atol=1e-5)
    program.to_host(model, [optimizer])
    wanted_values = {**dict(eager.named_parameters()), **dict(eager.named_buffers())}
    for name, found in (*model.named_parameters(), *model.named_buffers()):
        torch.testing.assert_close(found, wanted_values[name], rtol=1e-4, atol=1e-4)
