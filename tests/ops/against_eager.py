"""Compiles many small modules into one program and compares it with PyTorch's eager mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import batucada as bt


@dataclass(frozen=True)
class Case:
    """A module and the tensors it is called with.  Floating ones get gradients.

    `rtol` and `atol` are those of torch.testing.assert_close: float32 rounding by default.
    """

    name: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    rtol: float = 1e-5
    atol: float = 1e-6


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.function(*tensors)


class Each(nn.Module):
    """Calls every module on its own inputs; `anchor` gives the optimizer something to hold."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules)
        self.anchor = nn.Parameter(torch.ones(2))

    def forward(self, groups: list[list[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        return tuple(module(*tensors) for module, tensors in zip(self.each, groups, strict=True))


def differences(
    cases: Sequence[Case], folder: Path, checked: bool = False, native: bool = False
) -> list[str]:
    """What differs from eager, a line each: outputs, gradients of inputs and of parameters; and
    what is left to PyTorch, where all has to be `native`.

    Every output starts the backward pass with the gradient of its mean.
    """
    model = Each([case.module for case in cases])
    tensors = [[_leaf(t) for t in case.inputs] for case in cases]
    named = [
        [bt.NamedTensor(f"x{i}_{j}", t) for j, t in enumerate(group)]
        for i, group in enumerate(tensors)
    ]
    program = _program(model, named, folder / "each.pef", len(cases), checked)
    given = [leaf for group in named for leaf in group]
    results = program.run([g.name for g in given], [g.tensor.detach() for g in given])
    model.zero_grad()
    expected = model(tensors)
    torch.stack([out.sum() / max(out.numel(), 1) for out in expected]).sum().backward()
    hosts = program.manifest.host.values() if native else ()
    found = [f"{host.source}: {host.target} runs in PyTorch" for host in hosts]
    for i, case in enumerate(cases):
        pairs = {"output": (results[i].tensor(), expected[i].detach())}
        pairs |= {
            f"gradient of input {j}": (program.gradient(f"x{i}_{j}"), t.grad)
            for j, t in enumerate(tensors[i])
            if t.grad is not None
        }
        pairs |= {
            f"gradient of {path}": (
                program.gradient(bt.symbol_name(model, f"each.{i}.{path}")),
                parameter.grad,
            )
            for path, parameter in case.module.named_parameters()
            if parameter.grad is not None
        }
        found += [line for what, pair in pairs.items() if (line := _compare(case, what, *pair))]
    return found


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_(tensor.is_floating_point())


def _program(model: nn.Module, named: Any, path: Path, outputs: int, checked: bool) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    options = bt.Options(checked=checked, threads=1)
    bt.compile(
        model,
        (named,),
        optimizers=[optimizer],
        path=path,
        loss_indices=range(outputs),
        options=options,
    )
    program = bt.load(path, options)
    program.attach(model, (named,), optimizers=[optimizer])
    return program


def _compare(case: Case, what: str, got: torch.Tensor, expected: torch.Tensor) -> str:
    try:
        torch.testing.assert_close(got, expected, rtol=case.rtol, atol=case.atol, equal_nan=True)
    except AssertionError as error:
        reason = " ".join(line for line in str(error).splitlines()[1:] if line)
        return f"{case.name}: {what}: {reason or error}"
    return ""
