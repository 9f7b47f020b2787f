"""The peers of `bench.py`.  Each takes a case and returns a function that runs n steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from workload import LEARNING_RATE, WEIGHT_DECAY, Case, inputs_of, model_of

if TYPE_CHECKING:
    from batucada import NamedTensor

Steps = Callable[[int], object]


class MissingPeerError(Exception):
    """The peer is not installed here."""


def session(case: Case, folder: Path) -> Steps:
    """Batucada by the SambaFlow API: a `session.run` a step, outputs not read."""
    from sambaflow import samba

    model = model_of(case)
    samba.from_torch_(model)
    inputs = tuple(
        samba.from_torch_tensor(tensor, name=name, batch_dim=0)
        for name, tensor in inputs_of(case).items()
    )
    optimizer = None
    if case.training:
        optimizer = samba.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    config = {
        "output_folder": str(folder),
        "pef_name": f"session-{case.name}",
        "inference": not case.training,
    }
    pef = samba.session.compile(model, inputs, optimizer, name=case.name, config_dict=config)
    samba.utils.trace_graph(model, inputs, optimizer, pef=pef)
    outputs = model.output_tensors

    def run(steps: int) -> None:
        for _ in range(steps):
            samba.session.run(input_tensors=inputs, output_tensors=outputs)

    return run


def loop(case: Case, folder: Path) -> Steps:
    """Batucada's native loop: all steps in one call."""
    model = model_of(case)
    import batucada

    inputs, arguments = inputs_of(case), named_inputs(case)
    optimizers = sgd(model) if case.training else ()
    path = folder / f"loop-{case.name}.pef"
    batucada.compile(model, arguments, optimizers=optimizers, path=path, name=case.name)
    program = batucada.load(path)
    program.attach(model, arguments, optimizers=optimizers)
    names, tensors = list(inputs), list(inputs.values())
    return lambda steps: program.loop(names, tensors, steps)


def eager(case: Case, folder: Path) -> Steps:
    """PyTorch as most people run it."""
    return _repeat(_torch_step(case))


def compiled(case: Case, folder: Path) -> Steps:
    """`torch.compile` of the whole step as one graph: forward, backward and update in place."""
    torch.compiler.reset()
    model, inputs = model_of(case), tuple(inputs_of(case).values())
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, weights, inputs)[0]

    def train() -> torch.Tensor:
        gradients, value = torch.func.grad_and_value(loss)(weights, *inputs)
        for name, weight in weights.items():
            weight.sub_(LEARNING_RATE * (gradients[name] + WEIGHT_DECAY * weight))
        return value

    step = torch.compile(train if case.training else lambda: model(*inputs), fullgraph=True)
    return _repeat(torch.inference_mode()(step))


def jax_jit(case: Case, folder: Path) -> Steps:
    """JAX: one jitted function a step, parameters donated."""
    try:
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingPeerError("jax is not installed: pip install -e .[bench]") from None
    inputs = {name: jnp.asarray(tensor.numpy()) for name, tensor in inputs_of(case).items()}
    state = [jnp.asarray(p.detach().numpy().T) for p in model_of(case).parameters()]

    def logits(weights, images):
        return jax.nn.relu(images @ weights[0]) @ weights[1] @ weights[2]

    def loss(weights, images, labels):
        scores = jax.nn.log_softmax(logits(weights, images))
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    def train(weights, images, labels):
        value, gradients = jax.value_and_grad(loss)(weights, images, labels)
        update = [
            w - LEARNING_RATE * (g + WEIGHT_DECAY * w)
            for w, g in zip(weights, gradients, strict=True)
        ]
        return update, value

    def run(steps: int) -> None:
        nonlocal state
        result = None
        for _ in range(steps):
            if case.training:
                state, result = step(state, **inputs)
            else:
                result = step(state, **inputs)
        jax.block_until_ready(result)

    step = jax.jit(train, donate_argnums=0) if case.training else jax.jit(logits)
    return run


PEERS: dict[str, Callable[[Case, Path], Steps]] = {
    "session": session,
    "loop": loop,
    "eager": eager,
    "compile": compiled,
    "jax": jax_jit,
}


def named_inputs(case: Case) -> tuple[NamedTensor, ...]:
    """The inputs of a case as `batucada.compile` takes them."""
    from batucada import NamedTensor

    return tuple(NamedTensor(name, tensor) for name, tensor in inputs_of(case).items())


def sgd(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)]


def _torch_step(case: Case) -> Callable[[], object]:
    model, inputs = model_of(case), tuple(inputs_of(case).values())
    if not case.training:
        return torch.inference_mode()(lambda: model(*inputs))
    (optimizer,) = sgd(model)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss, _ = model(*inputs)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _repeat(step: Callable[[], object]) -> Steps:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run
