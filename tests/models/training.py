"""Trains a row's model here and in eager PyTorch, and says how far the two are apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import batucada as bt

from .eager import first
from .row import Batch, Row

STEPS = 10


@dataclass(frozen=True)
class Trained:
    """The losses of each step, and parameters and buffers afterwards, by name."""

    losses: list[float]
    state: dict[str, Tensor]


@dataclass(frozen=True)
class Distance:
    """`loss` is the largest relative difference over the steps.  `state` is the largest over all
    parameters and buffers of the largest difference in a tensor, relative to its largest element or
    1, whichever is more; `where` names that tensor.  `moved` is how far, in the same measure, eager
    training took the parameters from where they began."""

    loss: float
    state: float
    where: str
    moved: float


def named(batch: Batch) -> tuple[bt.NamedTensor, ...]:
    return tuple(bt.NamedTensor(name, tensor) for name, tensor in batch.items())


def compiled(row: Row, path: Path, options: bt.Options | None = None) -> bt.Program:
    """The program of a whole training step, holding the row's first weights."""
    model, (batch,) = row.model(), row.batches(1)
    bt.compile(
        model, named(batch), optimizers=[row.optimizer(model)], path=path, loss_indices=[0],
        options=options,
    )  # fmt: skip
    return loaded(row, path, options)


def loaded(row: Row, path: Path, options: bt.Options | None = None) -> bt.Program:
    """As `compiled`, from a PEF that is there."""
    model, (batch,) = row.model(), row.batches(1)
    program = bt.load(path, options)
    program.attach(model, named(batch), optimizers=[row.optimizer(model)])
    return program


def train_here(row: Row, program: bt.Program, steps: int = STEPS) -> Trained:
    losses = [
        program.run(list(batch), list(batch.values()))[0].tensor().item()
        for batch in row.batches(steps)
    ]
    model = row.model()
    program.to_host(model)
    return Trained(losses, state_of(model))


def train_eagerly(row: Row, steps: int = STEPS) -> Trained:
    model = row.model()
    optimizer = row.optimizer(model)
    losses = []
    for batch in row.batches(steps):
        optimizer.zero_grad()
        loss = first(model(*batch.values()))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(losses, state_of(model))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that no checkpoint holds included."""
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def distance(row: Row, found: Trained, expected: Trained) -> Distance:
    pairs = zip(found.losses, expected.losses, strict=True)
    apart = {name: _apart(found.state[name], tensor) for name, tensor in expected.state.items()}
    where = max(apart, key=lambda name: apart[name])
    begun = row.model()
    return Distance(
        loss=max(abs(one - other) / max(abs(other), 1e-30) for one, other in pairs),
        state=apart[where],
        where=where,
        moved=max(_apart(p.detach(), expected.state[n]) for n, p in begun.named_parameters()),
    )


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _apart(found: Tensor, expected: Tensor) -> float:
    """Infinite where either holds what is no number."""
    found, expected = (_as_real(t).double() for t in (found, expected))
    if not expected.numel():
        return 0.0
    apart = float((found - expected).abs().max() / max(float(expected.abs().max()), 1.0))
    return apart if apart == apart else float("inf")
