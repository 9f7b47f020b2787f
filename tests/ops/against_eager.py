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


Groups = Sequence[Sequence[torch.Tensor]]
"""The tensors of each module."""


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
    cases: Sequence[Case], folder: Path, native: bool = False, unchecked: bool = False
) -> list[str]:
    """What differs from eager, a line each: outputs, gradients of inputs and of parameters, and
    buffers afterwards; and what is left to PyTorch, where all has to be `native`.

    Every output starts the backward pass with the gradient of its mean.  The build is a checked
    one and, if `unchecked`, the one that users run, too: the same code without the checks.
    """
    model = Each([case.module for case in cases])
    tensors = [[_leaf(t) for t in case.inputs] for case in cases]
    builds = {"checked": True, "fast": False} if unchecked else {"checked": True}
    programs = {
        name: _program(model, tensors, folder / f"{name}.pef", checked)
        for name, checked in builds.items()
    }
    results = {build: _run(program, tensors) for build, program in programs.items()}
    model.zero_grad()
    expected = model(tensors)
    torch.stack([out.sum() / max(out.numel(), 1) for out in expected]).sum().backward()
    hosts = programs["checked"].manifest.host.values() if native else ()
    found = [f"{host.source}: {host.target} runs in PyTorch" for host in hosts]
    for build, program in programs.items():
        for i, case in enumerate(cases):
            pairs = {"output": (results[build][i].tensor(), expected[i].detach())}
            pairs |= _gradients(program, model, i, tensors[i]) | _buffers(program, model, i)
            found += [
                f"{case.name}, {build}: {what}: {line}"
                for what, pair in pairs.items()
                if (line := _compare(case, *pair))
            ]
    return found


def _gradients(
    program: Any, model: Each, i: int, leaves: Sequence[torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The program's and eager's, of the inputs and the parameters of the module numbered `i`."""
    names = {f"x{i}_{j}": t.grad for j, t in enumerate(leaves)} | {
        bt.symbol_name(model, f"each.{i}.{path}"): parameter.grad
        for path, parameter in model.each[i].named_parameters()
    }
    return {
        f"gradient of {name}": (program.gradient(name), grad.to_dense())
        for name, grad in names.items()
        if grad is not None
    }


def _buffers(program: Any, model: Each, i: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the module numbered `i` keeps from step to step."""
    named = model.each[i].named_buffers()
    held = {bt.symbol_name(model, f"each.{i}.{path}"): buffer for path, buffer in named}
    known = [name for name in held if name in program.symbols]
    return {name: (program.value(name), held[name]) for name in known}


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_(tensor.is_floating_point())


def _program(model: Each, tensors: Groups, path: Path, checked: bool) -> Any:
    named = [
        [bt.NamedTensor(f"x{i}_{j}", t) for j, t in enumerate(group)]
        for i, group in enumerate(tensors)
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    options = bt.Options(checked=checked, threads=1)
    bt.compile(
        model,
        (named,),
        optimizers=[optimizer],
        path=path,
        loss_indices=range(len(tensors)),
        options=options,
    )
    program = bt.load(path, options)
    program.attach(model, (named,), optimizers=[optimizer])
    return program


def _run(program: Any, tensors: Groups) -> Any:
    given = {
        f"x{i}_{j}": t.detach() for i, group in enumerate(tensors) for j, t in enumerate(group)
    }
    return program.run(list(given), list(given.values()))


def _compare(case: Case, got: torch.Tensor, expected: torch.Tensor) -> str:
    try:
        torch.testing.assert_close(got, expected, rtol=case.rtol, atol=case.atol, equal_nan=True)
    except AssertionError as error:
        return " ".join(line for line in str(error).splitlines()[1:] if line) or str(error)
    return ""
