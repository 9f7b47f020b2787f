"""A small classifier, compiled and traced, and the eager PyTorch that it must agree with."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from sambaflow import samba
from sambaflow.samba import utils

BATCH, FEATURES, CLASSES = 16, 12, 5
TOLERANCE = 1e-5
Optimizers = Callable[[Any], Any]  # of a model


class Classifier(nn.Module):
    """f32[batch, features], i64[batch] -> loss f32[], logits f32[batch, classes]"""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, hidden)
        self.last = nn.Linear(hidden, CLASSES)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.last(torch.relu(self.first(x)))
        return nn.functional.cross_entropy(logits, label), logits


def batch(size: int = BATCH, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, FEATURES, generator=generator),
        torch.randint(CLASSES, (size,), generator=generator),
    )


def named(x: torch.Tensor, label: torch.Tensor) -> list[Any]:
    return [samba.from_torch(x, "x"), samba.from_torch(label, "label")]


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> Any:
    return samba.optim.SGD(model.parameters(), lr=lr, **options)


def traced(
    optimizers: Optimizers | None = sgd,
    *,
    model: nn.Module | None = None,
    inputs: Sequence[Any] | None = None,
    size: int = BATCH,
) -> tuple[Any, Any]:
    """The model and its optimizers, traced; compiled when the first test needs that PEF."""
    utils.set_seed(3)
    model = model or Classifier()
    samba.from_torch_model_(model)
    inputs = inputs or named(*batch(size))
    made = optimizers(model) if optimizers is not None else None
    utils.trace_graph(model, inputs, made, pef=_compiled(model, inputs, made))
    return model, made


_folder = TemporaryDirectory()
atexit.register(_folder.cleanup)
_pefs: dict[str, str] = {}


def _compiled(model: nn.Module, inputs: Sequence[Any], made: Any) -> str:
    listed = made if isinstance(made, list) else [made]
    limits = [getattr(optimizer, "max_grad_norm", None) for optimizer in listed]
    shapes = [(i.name, i.shape, i.dtype, i.requires_grad) for i in inputs]
    key = f"{model} {shapes} {made} {limits} {os.environ.get('BATUCADA_CHECKED')}"
    if key not in _pefs:
        config = {"pef_name": f"net{len(_pefs)}", "output_folder": _folder.name}
        _pefs[key] = samba.session.compile(
            model, inputs, made, config_dict=config, inference=made is None
        )
    return _pefs[key]


def twin_of(model: nn.Module) -> Classifier:
    """A plain copy of a model's parameters, to train with eager PyTorch."""
    twin = Classifier(model.first.out_features)  # type: ignore[attr-defined]
    twin.load_state_dict(deepcopy(model.state_dict()))
    return twin


def eager_step(model: nn.Module, optimizer: Any, x: torch.Tensor, label: torch.Tensor) -> float:
    """One step of PyTorch; returns the loss before it."""
    optimizer.zero_grad()
    loss = model(x, label)[0]
    loss.backward()
    optimizer.step()
    return loss.item()


def device_bits(program: Any) -> dict[str, torch.Tensor]:
    """Copies of everything that training changes on the device."""
    records = program.manifest.of_role("parameter", "buffer", "state")
    return {record.name: program.read(record.name) for record in records}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def assert_same_parameters(model: nn.Module, gold: nn.Module, tolerance: float = TOLERANCE) -> None:
    """The device's parameters against those of an eager model."""
    samba.session.to_cpu(model)
    wanted = dict(gold.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.detach().as_subclass(torch.Tensor), wanted[name].detach(),
            atol=tolerance, rtol=tolerance,
        )  # fmt: skip
