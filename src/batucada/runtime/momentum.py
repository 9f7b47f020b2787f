"""Momentum for a program that was compiled without: SGD's update on the host, in PyTorch.

A momentum of 0 at compilation leaves its buffers and their traffic out of the native update.  When
a run asks for momentum all the same, these updates are made here; compile with the momentum for the
native speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batucada.pef import OptimizerRecord


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


def groups_without_momentum(records: Sequence[OptimizerRecord]) -> tuple[MomentumGroup, ...]:
    return tuple(
        MomentumGroup(
            tuple(group["parameters"]),
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

    def __init__(
        self, groups: Sequence[MomentumGroup], view: Callable[[str], torch.Tensor]
    ) -> None:
        self.groups = tuple(groups)
        self.buffers: dict[str, torch.Tensor] = {}
        self._view = view

    def load(self, name: str, buffer: torch.Tensor | None) -> None:
        """Take over the host optimizer's buffer of a parameter, if this update concerns it."""
        if buffer is None:
            self.buffers.pop(name, None)
        elif any(name in group.parameters for group in self.groups):
            self.buffers[name] = buffer.detach().clone()

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
                gradient = self._view(f"{name}__grad") * group.sign + decay * before[name]
                moved = self._moved(name, gradient, momentum, group.dampening)
                step = gradient + momentum * moved if group.nesterov else moved
                self._view(name).copy_(before[name] - lr * step)

    def _moved(
        self, name: str, gradient: torch.Tensor, momentum: float, dampening: float
    ) -> torch.Tensor:
        """torch.optim.SGD's buffer: the gradient itself at first."""
        held = self.buffers.get(name)
        moved = gradient if held is None else momentum * held + (1 - dampening) * gradient
        self.buffers[name] = moved
        return moved
