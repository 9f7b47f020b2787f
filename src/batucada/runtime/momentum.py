"""Momentum for a program that was compiled without: SGD's update on the host, in PyTorch.

A momentum of 0 at compilation leaves its buffers and their traffic out of the native update.  When
a run asks for momentum all the same, these updates are made here; compile with the momentum for the
native speed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batucada.pef import Manifest, OptimizerRecord
from batucada.runtime.results import as_kept


@dataclass(frozen=True, slots=True)
class MomentumGroup:
    """Parameters of one SGD group that has no compiled momentum, and where its hyperparameters
    lie.
    """

    parameters: tuple[str, ...]
    hyper: Mapping[str, str]
    dampening: float
    nesterov: bool
    sign: float  # -1 where the optimizer maximizes


@dataclass(frozen=True, slots=True)
class Clipping:
    """Parameters whose gradients are clipped together, and to which norm."""

    parameters: tuple[str, ...]
    limit: float


def clipping_of(
    records: Sequence[OptimizerRecord], differentiated: Collection[str]
) -> Clipping | None:
    """As compiled: over all optimizers that ask for it, to the lowest limit."""
    asking = [r for r in records if r.options["max_grad_norm"] is not None]
    held = tuple(p for r in asking for p in r.parameters if p in differentiated)
    return Clipping(held, min(r.options["max_grad_norm"] for r in asking)) if held else None


def groups_without_momentum(
    records: Sequence[OptimizerRecord], differentiated: Collection[str]
) -> tuple[MomentumGroup, ...]:
    """The groups' parameters that have a gradient."""
    return tuple(
        MomentumGroup(
            tuple(p for p in group["parameters"] if p in differentiated),
            group["hyper"],
            float(group["options"]["dampening"]),
            bool(group["options"]["nesterov"]),
            -1.0 if group["options"]["maximize"] else 1.0,
        )
        for record in records
        if record.class_name == "sgd"
        for group in record.options["groups"]
        if group["defaults"]["momentum"] == 0
    )


class HostMomentum:
    """The momentum buffers, by parameter, and the update with them."""

    def __init__(self, manifest: Manifest, view: Callable[[str], torch.Tensor]) -> None:
        differentiated = {symbol.of for symbol in manifest.of_role("gradient")}
        self.groups = groups_without_momentum(manifest.optimizers, differentiated)
        self._clipping = clipping_of(manifest.optimizers, differentiated)
        self.buffers: dict[str, torch.Tensor] = {}
        self._view = view

    def load(self, name: str, buffer: torch.Tensor | None) -> None:
        """Take over the host optimizer's buffer of a parameter, if this update concerns it."""
        if buffer is None:
            self.buffers.pop(name, None)
        elif any(name in group.parameters for group in self.groups):
            self.buffers[name] = as_kept(buffer.detach()).clone()

    @property
    def active(self) -> bool:
        return any(float(self._view(group.hyper["momentum"])) != 0 for group in self.groups)

    def around(self, native_update: Callable[[], Any]) -> None:
        """Run the native update, and replace what it did to the parameters that have a momentum."""
        moving = [g for g in self.groups if float(self._view(g.hyper["momentum"])) != 0]
        before = {p: self._view(p).clone() for group in moving for p in group.parameters}
        native_update()
        for group in moving:
            lr, momentum, decay = (
                float(self._view(group.hyper[key])) for key in ("lr", "momentum", "weight_decay")
            )
            for name in group.parameters:
                gradient = self._clipped(name) * group.sign + decay * before[name]
                moved = self._moved(name, gradient, momentum, group.dampening)
                step = gradient + momentum * moved if group.nesterov else moved
                self._view(name).copy_(before[name] - lr * step)

    def _clipped(self, name: str) -> torch.Tensor:
        """The gradient as the native update sees it."""
        gradient, clipping = self._view(f"{name}__grad"), self._clipping
        if clipping is None or name not in clipping.parameters:
            return gradient
        squares = [self._view(f"{p}__grad").float().square().sum() for p in clipping.parameters]
        # 1e-6 is of torch.nn.utils.clip_grad_norm_
        norm = float(torch.stack(squares).sum().sqrt()) + 1e-6
        return gradient * min(clipping.limit / norm, 1.0)

    def _moved(
        self, name: str, gradient: torch.Tensor, momentum: float, dampening: float
    ) -> torch.Tensor:
        """torch.optim.SGD's buffer: the gradient itself at first."""
        held = self.buffers.get(name)
        moved = gradient if held is None else momentum * held + (1 - dampening) * gradient
        self.buffers[name] = moved
        return moved
