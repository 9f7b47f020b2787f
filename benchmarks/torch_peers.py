"""PyTorch as a peer: eager, `torch.compile` and AOTInductor, each with channels-last images too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from workload import LEARNING_RATE, WEIGHT_DECAY, Case, inputs_of, model_of

Steps = Callable[[int], object]


class MissingPeerError(Exception):
    """The peer is not installed here, or has no form of the case."""


def sgd(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)]


def repeat(step: Callable[[], object]) -> Steps:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


def _prepared(case: Case, channels_last: bool) -> tuple[nn.Module, tuple[Tensor, ...]]:
    model, inputs = model_of(case), tuple(inputs_of(case).values())
    if not channels_last:
        return model, inputs
    if not case.of_images:
        raise MissingPeerError("no images")
    images = inputs[0].contiguous(memory_format=torch.channels_last)
    return model.to(memory_format=torch.channels_last), (images, *inputs[1:])  # type: ignore[call-overload]


def _step(model: nn.Module, call: Any, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    (optimizer,) = sgd(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss, _ = call(*inputs)
        loss.backward()
        optimizer.step()
        return loss

    return step


def eager(case: Case, folder: Path, channels_last: bool = False) -> Steps:
    """PyTorch as most people run it."""
    model, inputs = _prepared(case, channels_last)
    if not case.training:
        return repeat(torch.inference_mode()(lambda: model(*inputs)))
    return repeat(_step(model, model, inputs))


def compiled_model(case: Case, folder: Path, channels_last: bool = False) -> Steps:
    """`torch.compile` of the model; backward follows, the optimizer is eager."""
    torch.compiler.reset()
    model, inputs = _prepared(case, channels_last)
    call = torch.compile(model)
    if not case.training:
        return repeat(torch.inference_mode()(lambda: call(*inputs)))
    return repeat(_step(model, call, inputs))


def _functional_step(model: nn.Module) -> Callable[..., Any]:
    """(parameters, buffers, *inputs) -> (loss, new parameters); buffers are changed in place."""

    def loss(parameters: Any, buffers: Any, *inputs: Tensor) -> Tensor:
        return torch.func.functional_call(model, (parameters, buffers), inputs)[0]

    def step(parameters: Any, buffers: Any, *inputs: Tensor) -> Any:
        gradients, value = torch.func.grad_and_value(loss)(parameters, buffers, *inputs)
        new = {
            name: p - LEARNING_RATE * (gradients[name] + WEIGHT_DECAY * p)
            for name, p in parameters.items()
        }
        return value, new

    return step


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return parameters, dict(model.named_buffers())


def compiled_step(case: Case, folder: Path, channels_last: bool = False) -> Steps:
    """`torch.compile` of the whole step as one graph: forward, backward and update."""
    if not case.training:
        raise MissingPeerError("the model is all of it")
    torch.compiler.reset()
    model, inputs = _prepared(case, channels_last)
    parameters, buffers = _state(model)
    function = _functional_step(model)

    def train() -> Tensor:
        value, new = function(parameters, buffers, *inputs)
        for name, weight in parameters.items():
            weight.copy_(new[name])
        return value

    return repeat(torch.no_grad()(torch.compile(train, fullgraph=True)))


class _Flat(nn.Module):
    """A step over a flat list of tensors, with its results flat as well."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def _package(program: Any, path: Path) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    torch._inductor.aoti_compile_and_package(program, package_path=str(unfinished))
    unfinished.replace(path)


def _exported_step(
    model: nn.Module,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
    inputs: tuple[Tensor, ...],
) -> Any:
    """(*parameters, *buffers, *inputs) -> (loss, *new parameters, *new buffers)"""
    names, buffer_names = list(parameters), list(buffers)
    whole = _functional_step(model)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        n, b = len(names), len(buffer_names)
        held = {k: t.clone() for k, t in zip(buffer_names, tensors[n : n + b], strict=True)}
        given = dict(zip(names, tensors[:n], strict=True))
        value, new = whole(given, held, *tensors[n + b :])
        return (value, *new.values(), *held.values())

    arguments = (*parameters.values(), *buffers.values(), *inputs)
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        graph = make_fx(torch.func.functionalize(flat))(*arguments)
        return torch.export.export(_Flat(graph), arguments)


def ahead_of_time(case: Case, folder: Path, channels_last: bool = False) -> Steps:
    """AOTInductor: the whole step, or the model, as a shared library."""
    model, inputs = _prepared(case, channels_last)
    layout = "-channels-last" if channels_last else ""
    path = folder / f"{case.name}{layout}-{torch.get_num_threads()}.pt2"
    if not case.training:
        if not path.exists():
            with torch.no_grad():
                _package(torch.export.export(model, inputs), path)
        call = torch._inductor.aoti_load_package(str(path))
        return repeat(torch.inference_mode()(lambda: call(*inputs)))
    parameters, buffers = _state(model)
    if not path.exists():
        _package(_exported_step(model, parameters, buffers, inputs), path)
    call = torch._inductor.aoti_load_package(str(path))
    state = [*parameters.values(), *buffers.values()]

    def run(steps: int) -> None:
        nonlocal state
        with torch.no_grad():
            for _ in range(steps):
                _, *state = call(*state, *inputs)

    return run


PEERS: dict[str, Callable[..., Steps]] = {
    "eager": eager,
    "compile-model": compiled_model,
    "compile-step": compiled_step,
    "aoti": ahead_of_time,
}
