"""Random multilayer perceptrons, losses and optimizers: ten steps and more, as eager takes them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import batucada as bt

RTOL, ATOL = 1e-5, 1e-5
"""Float32 rounding over ten steps of values near 1; weights move by up to 0.1 a step."""

WIDTHS = st.sampled_from((1, 2, 7, 8, 10, 17, 33))
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.Tanh,
    nn.GELU,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.SiLU,
)
LOSSES: tuple[type[nn.Module], ...] = (
    nn.CrossEntropyLoss,
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.HuberLoss,
)


class Perceptron(nn.Module):
    """Layers of the given widths with a loss behind them; returns loss and scores."""

    def __init__(
        self, widths: Sequence[int], bias: bool, activation: type[nn.Module], loss: nn.Module
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=bias), activation()]
        self.layers = nn.Sequential(*layers[:-1])
        self.loss = loss

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.layers(x)
        return self.loss(scores, y), scores


@dataclass(frozen=True)
class Training:
    """A model and how it is trained."""

    model: Perceptron
    optimizer: type[torch.optim.Optimizer]
    options: dict[str, Any]
    max_grad_norm: float | None
    batches: list[tuple[torch.Tensor, torch.Tensor]]

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        optimizer = self.optimizer(model.parameters(), **self.options)
        optimizer.max_grad_norm = self.max_grad_norm  # type: ignore[attr-defined]
        return optimizer


def _sgd(draw: st.DrawFn) -> dict[str, Any]:
    momentum = draw(st.sampled_from((0.0, 0.9)))
    nesterov = momentum > 0 and draw(st.booleans())
    dampening = draw(st.sampled_from((0.0, 0.3))) if momentum and not nesterov else 0.0
    return {"lr": 0.05, "momentum": momentum, "nesterov": nesterov, "dampening": dampening}


def _adamw(draw: st.DrawFn) -> dict[str, Any]:
    return {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "amsgrad": draw(st.booleans())}


@st.composite
def trainings(draw: st.DrawFn) -> Training:
    widths = draw(st.lists(WIDTHS, min_size=2, max_size=4))
    batch = draw(st.sampled_from((1, 2, 7, 16, 33)))
    loss = draw(st.sampled_from(LOSSES))()
    torch.manual_seed(draw(st.integers(0, 100)))
    model = Perceptron(widths, draw(st.booleans()), draw(st.sampled_from(ACTIVATIONS)), loss)
    optimizer = draw(st.sampled_from((torch.optim.SGD, torch.optim.AdamW)))
    options = (_sgd if optimizer is torch.optim.SGD else _adamw)(draw)
    options["weight_decay"] = draw(st.sampled_from((0.0, 0.1)))
    options["maximize"] = draw(st.integers(0, 4)) == 0
    norm = draw(st.sampled_from((None, 0.5)))
    batches = [(torch.randn(batch, widths[0]), _target(loss, batch, widths[-1])) for _ in range(3)]
    return Training(model, optimizer, options, norm, batches)


def _target(loss: nn.Module, batch: int, width: int) -> torch.Tensor:
    if isinstance(loss, nn.CrossEntropyLoss):
        return torch.randint(0, width, (batch,))
    return torch.rand(batch, width)


def _eager_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    optimizer.zero_grad()
    loss, _ = model(*batch)
    loss.backward()
    norm = optimizer.max_grad_norm  # type: ignore[attr-defined]
    if norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimizer.step()
    return loss.detach()


def _assert_close(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    torch.testing.assert_close(
        got, expected, rtol=RTOL, atol=ATOL, msg=lambda text: f"{what}: {text}"
    )


@settings(max_examples=12, phases=[Phase.generate])
@given(trainings())
def test_ten_steps_as_in_eager(training: Training) -> None:
    model, eager = training.model, copy.deepcopy(training.model)
    optimizer, eager_optimizer = training.optimizer_of(model), training.optimizer_of(eager)
    x, y = training.batches[0]
    inputs = (bt.NamedTensor("x", x), bt.NamedTensor("y", y))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pef"
        bt.compile(model, inputs, optimizers=[optimizer], path=path)
        program = bt.load(path)
    program.attach(model, inputs, optimizers=[optimizer])
    for step in range(10):
        batch = training.batches[step % 3]
        loss = program.run(["x", "y"], batch)[0].tensor()
        _assert_close(loss, _eager_step(eager, eager_optimizer, batch), f"loss of step {step}")
    program.loop(["x", "y"], training.batches[0], 3)
    for _ in range(3):
        _eager_step(eager, eager_optimizer, training.batches[0])
    program.to_host(model, [optimizer])
    for (path_of, ours), theirs in zip(model.named_parameters(), eager.parameters(), strict=True):
        _assert_close(ours.detach(), theirs.detach(), path_of)
        state, eager_state = optimizer.state[ours], eager_optimizer.state[theirs]
        for key, value in state.items():
            _assert_close(value, eager_state[key], f"{path_of}: {key}")
