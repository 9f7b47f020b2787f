"""Many steps in one native call give what as many runs give, and what eager gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt

Maker = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Maker] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
}


class Mlp(nn.Module):
    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.first = nn.Linear(features, hidden or classes)
        self.second = nn.Linear(hidden, classes, bias=False) if hidden else nn.Identity()
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.second(torch.tanh(self.first(x)) if self.hidden else self.first(x))
        return self.criterion(logits, y), logits


def swept(program: bt.Program) -> bool:
    return any(slot.name == "x__next" for slot in program.manifest.slots)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("batch", "features", "hidden", "sweeps"),
    [
        (1, 83, 33, True),
        (1, 7, 10, True),
        (1, 20, 0, True),
        (2, 20, 0, True),
        (2, 30, 9, True),
        (3, 40, 33, False),
    ],
)
def test_a_loop_is_as_many_steps(
    tmp_path: Path, optimizer: str, batch: int, features: int, hidden: int, sweeps: bool
) -> None:
    torch.manual_seed(3)
    model = Mlp(features, hidden, 5)
    made = OPTIMIZERS[optimizer](model.parameters())
    x, y = torch.randn(batch, features), torch.randint(5, (batch,))
    inputs = (bt.NamedTensor("x", x), bt.NamedTensor("y", y))
    path = tmp_path / "mlp.pef"
    bt.compile(model, inputs, optimizers=[made], path=path)
    looped, stepped = (bt.load(path, bt.Options(threads=1)) for _ in range(2))
    for program in (looped, stepped):
        program.attach(model, inputs, optimizers=[made])
    assert swept(looped) == sweeps

    together = looped.loop(["x", "y"], [x, y], 6)
    for _ in range(6):
        single = stepped.run(["x", "y"], [x, y])
        made.zero_grad()
        loss, _logits = model(x, y)
        loss.backward()
        made.step()

    torch.testing.assert_close(together[0].tensor(), single[0].tensor(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together[0].tensor(), loss, rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        symbol = bt.symbol_name(model, name)
        close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(looped.read(symbol), parameter, check_stride=False, **close)
        torch.testing.assert_close(looped.read(symbol), stepped.read(symbol), **close)
        torch.testing.assert_close(looped.gradient(symbol), parameter.grad, **close)


def test_a_program_is_called_with_the_inputs_in_order(tmp_path: Path) -> None:
    model = Mlp(12, 8, 5)
    x, y = torch.randn(3, 12), torch.randint(5, (3,))
    bt.compile(model, (x, y), path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, (x, y))
    assert repr(program) == (
        f"Program({tmp_path / 'm.pef'}: inference, x, y -> "
        "mlp__criterion__crossentropyloss__outputs__0, mlp__second__linear__outputs__0)"
    )
    loss, logits = program(x, y)
    torch.testing.assert_close((loss, logits), model(x, y))
    (result, _) = program.run(["y", "x"], [y, x])
    assert repr(result) == f"Result('mlp__criterion__crossentropyloss__outputs__0', {loss!r})"


def test_a_loop_stops_at_a_wrong_label_and_updates_nothing(tmp_path: Path) -> None:
    model = Mlp(12, 8, 5)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(1, 12), torch.tensor([5])
    inputs = (bt.NamedTensor("x", x), bt.NamedTensor("y", y))
    bt.compile(model, inputs, optimizers=[made], path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    program.attach(model, inputs, optimizers=[made])
    with pytest.raises(bt.errors.IndexRangeError, match=r"label 5 in the input 'y'.*0 to 4"):
        program.loop(["x", "y"], [x, y], 3)
    for name, parameter in model.named_parameters():
        assert torch.equal(program.read(bt.symbol_name(model, name)), parameter)


@pytest.mark.parametrize(("batch", "hidden"), [(1, 8), (1, 0), (4, 8)])
def test_many_batches_in_one_call_are_as_many_runs(tmp_path: Path, batch: int, hidden: int) -> None:
    model = Mlp(12, hidden, 5)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(6, batch, 12), torch.randint(5, (6, batch))
    inputs = (bt.NamedTensor("x", x[0]), bt.NamedTensor("y", y[0]))
    bt.compile(model, inputs, optimizers=[made], path=tmp_path / "m.pef")
    together, single = (bt.load(tmp_path / "m.pef") for _ in range(2))
    for program in (together, single):
        program.attach(model, inputs, optimizers=[made])

    losses, logits = together.run_steps(["x", "y"], [x, y], {"lr": 0.2})
    for step in range(6):
        loss, scores = single.run(["x", "y"], [x[step], y[step]], hyper={"lr": 0.2})
        torch.testing.assert_close(losses[step], loss.tensor(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(logits[step], scores.tensor(), rtol=1e-5, atol=1e-6)
    for name, _ in model.named_parameters():
        symbol = bt.symbol_name(model, name)
        for read in (bt.Program.read, bt.Program.gradient):
            ours, theirs = read(together, symbol), read(single, symbol)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_many_batches_must_agree(tmp_path: Path) -> None:
    model = Mlp(12, 8, 5)
    x, y = torch.randn(1, 12), torch.tensor([0])
    bt.compile(model, (bt.NamedTensor("x", x), bt.NamedTensor("y", y)), path=tmp_path / "m.pef")
    program = bt.load(tmp_path / "m.pef")
    with pytest.raises(bt.errors.InputError, match="counts the steps"):
        program.run_steps(["x", "y"], [torch.randn(3, 1, 12), torch.zeros(2, 1).long()])
    with pytest.raises(bt.errors.InputError, match=r"'x' has shape \(3, 12\).*\(steps, 1, 12\)"):
        program.run_steps(["x", "y"], [torch.randn(3, 12), torch.zeros(3, 1).long()])


def test_a_refused_run_leaves_buffers_alone(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self.body(x), y)

    net = Normed()
    made = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 9, 2, 3])
    inputs = (bt.NamedTensor("x", x), bt.NamedTensor("y", y))
    bt.compile(net, inputs, optimizers=[made], path=tmp_path / "n.pef")
    program = bt.load(tmp_path / "n.pef")
    program.attach(net, inputs, optimizers=[made])
    with pytest.raises(bt.errors.IndexRangeError, match="label 9"):
        program.run(["x", "y"], [x, y])
    mean = bt.symbol_name(net, "body.1.running_mean")
    assert torch.equal(program.read(mean), torch.zeros(4))
    program.run(["x", "y"], [x, torch.tensor([0, 1, 3, 2, 3])])
    assert not torch.equal(program.read(mean), torch.zeros(4))
