"""Models of complex numbers beside eager: parameters, buffers, constants, inputs and outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import batucada as bt
from batucada.checkpoint.state import Progress, Trained
from batucada.errors import InputError, PefMismatchError
from tests.models.fourier_rows import NeuralOperator

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Rotary(nn.Module):
    """Attention whose queries and keys are turned by complex numbers, kept as `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)
        turns = torch.outer(torch.arange(6.0), 100.0 ** -torch.arange(0.0, 1, 0.5))
        turned = torch.polar(torch.ones_like(turns), turns)
        if kind == "constant":
            self.turned = turned
        else:
            self.register_buffer("turned", turned, persistent=kind == "buffer")

    def _turn(self, x: Tensor) -> Tensor:
        z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(z * self.turned[: x.shape[-2]]).flatten(-2)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        heads = self.project(x).unflatten(-1, (3, 2, 4)).transpose(1, 3)
        q, k, v = heads.unbind(2)
        out = functional.scaled_dot_product_attention(
            self._turn(q), self._turn(k), v, is_causal=True
        )
        return (out.transpose(1, 2).flatten(-2) - target).square().mean()


class Averages(nn.Module):
    """A complex input, two complex outputs, and a complex buffer that the forward pass changes."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(5, dtype=torch.cfloat))
        self.register_buffer("mean", torch.zeros(5, dtype=torch.cfloat))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.mean.mul_(0.5).add_(z.detach().mean(0), alpha=0.5)
        turned = (z - self.mean.clone()) * self.gain
        return turned.abs().mean(), turned


def batch_of(model: nn.Module) -> dict[str, Tensor]:
    if isinstance(model, NeuralOperator):
        return {"x": torch.randn(3, 2, 8, 10), "target": torch.randn(3, 1, 8, 10)}
    if isinstance(model, Rotary):
        return {"x": torch.randn(2, 5, 8), "target": torch.randn(2, 5, 8)}
    return {"z": torch.randn(3, 5, dtype=torch.cfloat)}


def compiled(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> bt.Program:
    named = tuple(bt.NamedTensor(name, t) for name, t in batch_of(model).items())
    options = bt.Options(threads=1)
    bt.compile(model, named, optimizers=[optimizer], path=path, options=options, loss_indices=[0])
    program = bt.load(path, options)
    program.attach(model, named, optimizers=[optimizer])
    assert not program.manifest.host
    return program


def train_eagerly(model: nn.Module, optimizer: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    optimizer.zero_grad()
    outputs = model(*batch.values())
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    outputs[0].backward()
    if hasattr(optimizer, "max_grad_norm"):
        nn.utils.clip_grad_norm_(model.parameters(), optimizer.max_grad_norm)
    optimizer.step()
    return [output.detach() for output in outputs]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def clipped(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    optimizer.max_grad_norm = 0.1  # type: ignore[attr-defined]
    return optimizer


@pytest.mark.parametrize(
    ("build", "optimizer"),
    [
        (NeuralOperator, adamw), (NeuralOperator, clipped), (Averages, adamw),
        *((lambda kind=kind: Rotary(kind), adamw) for kind in ("constant", "buffer", "not kept")),
    ],
)  # fmt: skip
def test_trains_as_eager(
    build: Callable[[], nn.Module], optimizer: Optimizer, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = build()
    eager = copy.deepcopy(model)
    here, there = optimizer(model), optimizer(eager)
    program = compiled(model, here, tmp_path / "model.pef")
    for _ in range(4):
        batch = batch_of(model)
        found = program.run(list(batch), list(batch.values()))
        for result, expected in zip(found, train_eagerly(eager, there, batch), strict=True):
            close(result.tensor(), expected)
    if not hasattr(there, "max_grad_norm"):
        for name, parameter in eager.named_parameters():
            assert parameter.grad is not None
            close(program.gradient(bt.symbol_name(model, name)), parameter.grad)
    program.to_host(model, [here])
    for name, value in eager.state_dict().items():
        close(model.state_dict()[name], value)
    for number, held in there.state_dict()["state"].items():
        for key, value in held.items():
            close(here.state_dict()["state"][number][key], value)


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = Averages()
    optimizer = adamw(model)
    program = compiled(model, optimizer, tmp_path / "model.pef")
    batch = batch_of(model)
    program.run(list(batch), list(batch.values()))
    trained = Trained(program, model, [optimizer])
    state = trained.state(Progress(step=1), [])
    later = [program.run(list(batch), list(batch.values()))[1].tensor() for _ in range(2)]
    assert trained.restore(state, 0).step == 1
    again = [program.run(list(batch), list(batch.values()))[1].tensor() for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(later, again, strict=True))


def test_values_are_complex_on_the_outside(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = Averages()
    eager = copy.deepcopy(model)
    program = compiled(model, sgd(model), tmp_path / "model.pef")
    assert [spec.dtype for spec in program.outputs] == [torch.float32, torch.complex64]
    batches = torch.randn(3, 3, 5, dtype=torch.cfloat)
    outputs = program.run_steps(["z"], [batches], {"momentum": 0.5})
    other = torch.optim.SGD(eager.parameters(), lr=0.1, momentum=0.5)
    for step, z in enumerate(batches):
        for found, expected in zip(outputs, train_eagerly(eager, other, {"z": z}), strict=True):
            close(found[step], expected)
    assert torch.equal(program.read("z"), batches[-1])
    new = torch.randn(5, dtype=torch.cfloat)
    program.write("averages__gain", new)
    assert torch.equal(program.read("averages__gain"), new)
    start = torch.randn(3, 5, dtype=torch.cfloat)
    program.set_output_gradient(1, start)
    assert torch.equal(program.gradient(program.outputs[1].name), start)
    with pytest.raises(InputError, match=r"compiled for torch\.complex64"):
        program.run(["z"], [batches[0].real])
    with pytest.raises(InputError, match="float32"):
        program.write("averages__gain", new.real)


def test_a_model_of_real_numbers_in_its_place(tmp_path: Path) -> None:
    model = Averages()
    program = compiled(model, sgd(model), tmp_path / "model.pef")
    other = nn.Module()
    other.gain = nn.Parameter(torch.zeros(5))
    other.register_buffer("mean", torch.zeros(5, dtype=torch.cfloat))
    with pytest.raises(PefMismatchError, match="gain: compiled as complex numbers"):
        program.to_device(other)
