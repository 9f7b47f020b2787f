"""The peers of `bench.py`.  Each takes a case and returns a function that runs n steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch_peers
from torch_peers import MissingPeerError, Steps, sgd
from workload import LEARNING_RATE, WEIGHT_DECAY, Case, inputs_of, model_of

if TYPE_CHECKING:
    from batucada import NamedTensor


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


def jax_jit(case: Case, folder: Path) -> Steps:
    """JAX: one jitted function a step, parameters donated.  Written for the FFN alone."""
    if not case.of_ffn:
        raise MissingPeerError("written for the FFN alone")
    try:
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingPeerError("jax is not installed: pip install -e .[bench]") from None
    inputs = {name: jnp.asarray(tensor.numpy()) for name, tensor in inputs_of(case).items()}
    state = [jnp.asarray(p.detach().numpy().T) for p in model_of(case).parameters()]

    def logits(weights, inputs):
        return jax.nn.relu(inputs @ weights[0]) @ weights[1] @ weights[2]

    def loss(weights, inputs, labels):
        scores = jax.nn.log_softmax(logits(weights, inputs))
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    def train(weights, inputs, labels):
        value, gradients = jax.value_and_grad(loss)(weights, inputs, labels)
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
    **torch_peers.PEERS,
    **{
        f"{name}-channels-last": partial(peer, channels_last=True)
        for name, peer in torch_peers.PEERS.items()
    },
    "jax": jax_jit,
}


def named_inputs(case: Case) -> tuple[NamedTensor, ...]:
    """The inputs of a case as `batucada.compile` takes them."""
    from batucada import NamedTensor

    return tuple(NamedTensor(name, tensor) for name, tensor in inputs_of(case).items())


def flops_of(case: Case, folder: Path) -> int:
    """Of one step, by the manifest of what `loop` compiled."""
    import batucada

    manifest = batucada.load(folder / f"loop-{case.name}.pef").manifest
    stages = set(manifest.entries["step"].stages)
    return sum(stage.flops for stage in manifest.stages if stage.name in stages)
