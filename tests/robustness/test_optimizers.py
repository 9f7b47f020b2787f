"""Every optimizer and option against torch.optim over ten steps, and its state on the way out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from batucada.errors import CaptureError
from sambaflow import samba
from tests.robustness.nets import (
    assert_same_parameters,
    batch,
    eager_step,
    named,
    sgd,
    traced,
    twin_of,
)

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (samba.optim.SGD, torch.optim.SGD, {}),
    "decay": (samba.optim.SGD, torch.optim.SGD, {"weight_decay": 0.05}),
    "momentum": (samba.optim.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (samba.optim.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "dampening": (samba.optim.SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.4}),
    "maximize": (
        samba.optim.SGD, torch.optim.SGD, {"momentum": 0.5, "maximize": True, "weight_decay": 0.1},
    ),
    "adam": (samba.optim.Adam, torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (samba.optim.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    "amsgrad": (samba.optim.AdamW, torch.optim.AdamW, {"amsgrad": True, "weight_decay": 0.1}),
    "adam up": (samba.optim.Adam, torch.optim.Adam, {"maximize": True, "amsgrad": True}),
    "adamw up": (samba.optim.AdamW, torch.optim.AdamW, {"maximize": True, "weight_decay": 0.1}),
}  # fmt: skip

# Those that SambaFlow has not: torch's own object is compiled.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nadam": (torch.optim.NAdam, {"weight_decay": 0.1}),
    "nadam decoupled": (
        torch.optim.NAdam,
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1},
    ),
    "radam": (torch.optim.RAdam, {"weight_decay": 0.1}),
    "radam decoupled": (
        torch.optim.RAdam,
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "adamax": (torch.optim.Adamax, {"betas": (0.8, 0.95), "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "weight_decay": 0.1}),
    "rmsprop centered": (
        torch.optim.RMSprop, {"centered": True, "momentum": 0.8, "maximize": True},
    ),
    "adagrad": (
        torch.optim.Adagrad,
        {"lr_decay": 0.2, "weight_decay": 0.1, "initial_accumulator_value": 0.3},
    ),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.8, "weight_decay": 0.1}),
    "asgd": (torch.optim.ASGD, {"weight_decay": 0.1, "lambd": 0.3, "alpha": 0.6}),
    "asgd averaging": (torch.optim.ASGD, {"t0": 1, "maximize": True}),
    "adafactor": (torch.optim.Adafactor, {}),
    "adafactor with all": (
        torch.optim.Adafactor,
        {"beta2_decay": -0.6, "eps": (1e-4, 0.2), "d": 1.1, "weight_decay": 0.1, "maximize": True},
    ),
    "rprop": (torch.optim.Rprop, {"etas": (0.4, 1.3), "step_sizes": (1e-3, 0.02)}),
}  # fmt: skip


def both(kind: str) -> tuple[Callable[[nn.Module], Any], Callable[[nn.Module], Any]]:
    ours, theirs, options = KINDS[kind]
    shared = {"lr": 0.01, **options}
    if theirs is not torch.optim.SGD:
        shared["betas"] = (0.8, 0.95)
    return lambda m: ours(m.parameters(), **shared), lambda m: theirs(m.parameters(), **shared)


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    """Device and eager PyTorch side by side, a batch of its own a step."""
    for step in steps:
        x, label = batch(seed=step)
        samba.session.run(named(x, label))
        eager_step(model, optimizer, x, label)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_steps_as_in_pytorch(kind: str) -> None:
    ours, theirs = both(kind)
    model, _ = traced(ours)
    gold = twin_of(model)
    train(gold, theirs(gold), range(10))
    assert_same_parameters(model, gold)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_torchs_other_optimizers_and_their_states(kind: str) -> None:
    """Five steps here, then five more in eager PyTorch with the state that came out."""
    make, options = OTHERS[kind]
    model, optimizer = traced(lambda m: make(m.parameters(), lr=0.01, **options))
    gold = twin_of(model)
    gold_optimizer = make(gold.parameters(), lr=0.01, **options)
    train(gold, gold_optimizer, range(5))
    assert_same_parameters(model, gold)
    resumed = twin_of(model)
    resumed_optimizer = make(resumed.parameters(), lr=0.01, **options)
    resumed_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    for step in range(5, 10):
        eager_step(gold, gold_optimizer, *batch(seed=step))
        eager_step(resumed, resumed_optimizer, *batch(seed=step))
    for one, other in zip(resumed.parameters(), gold.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    first, wanted = (o.state_dict()["state"][0] for o in (optimizer, resumed_optimizer))
    assert first.keys() == wanted.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "momentum": 0.8, "adjust_lr_fn": "match_rms_adamw", "eps": 1e-3},
        {"adjust_lr_fn": "spectral_unclamped", "ns_steps": 3, "ns_coefficients": (3.0, -4.0, 1.8)},
    ],
)
def test_muon_of_the_matrices(options: dict[str, Any]) -> None:
    """As far as bf16 goes, in which PyTorch iterates: to 1 % of an update."""
    try:
        torch.optim.Muon([torch.ones(2, 2)], **options)
    except ValueError as error:
        pytest.skip(f"this PyTorch has no such option: {error}")

    def both(model: Any) -> list[Any]:
        biases = [model.first.bias, model.last.bias]
        matrices = [model.first.weight, model.last.weight]
        return [torch.optim.Muon(matrices, lr=0.02, **options), torch.optim.SGD(biases, lr=0.1)]

    model, made = traced(both)
    gold = twin_of(model)
    start = twin_of(model)
    of_matrices, of_biases = both(gold)
    for step in range(3):
        x, label = batch(seed=step)
        samba.session.run(named(x, label))
        of_biases.zero_grad()
        eager_step(gold, of_matrices, x, label)
        of_biases.step()
    samba.session.to_cpu(model)
    for name, wanted in gold.named_parameters():
        moved = (wanted - start.get_parameter(name)).norm()
        assert (model.get_parameter(name) - wanted).norm() < 0.01 * moved, name
    states = [optimizer.state_dict()["state"][0] for optimizer in (made[0], of_matrices)]
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-2)


def test_an_optimizer_with_a_step_of_its_own_is_refused() -> None:
    class Halved(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    with pytest.raises(CaptureError, match=r"Halved has a step\(\) of its own"):
        traced(lambda m: Halved(m.parameters(), lr=0.1))
    with pytest.raises(
        CaptureError, match="LBFGS cannot be compiled: it evaluates the model sever"
    ):
        traced(lambda m: torch.optim.LBFGS(m.parameters()))
    with pytest.raises(CaptureError, match="SparseAdam cannot be compiled: it takes sparse gradie"):
        traced(lambda m: torch.optim.SparseAdam(m.parameters()))


@pytest.mark.parametrize("kind", ["momentum", "dampening", "adamw", "amsgrad"])
def test_a_state_goes_out_and_eager_training_continues(kind: str) -> None:
    ours, theirs = both(kind)
    model, optimizer = traced(ours)
    gold = twin_of(model)
    gold_optimizer = theirs(gold)
    train(gold, gold_optimizer, range(4))
    samba.session.to_cpu(model)
    resumed = twin_of(model)
    resumed_optimizer = theirs(resumed)
    resumed_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    for step in range(4, 8):
        for twin, with_optimizer in ((gold, gold_optimizer), (resumed, resumed_optimizer)):
            eager_step(twin, with_optimizer, *batch(seed=step))
    for one, other in zip(resumed.parameters(), gold.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["momentum", "dampening", "adamw", "amsgrad"])
@pytest.mark.parametrize("after_trace", [True, False])
def test_a_state_comes_in_and_training_continues(kind: str, after_trace: bool) -> None:
    ours, theirs = both(kind)
    model, optimizer = traced(ours)
    gold = twin_of(model)
    gold_optimizer = theirs(gold)
    for step in range(4):
        eager_step(gold, gold_optimizer, *batch(seed=step))
    model.load_state_dict(gold.state_dict())
    optimizer.load_state_dict(deepcopy(gold_optimizer.state_dict()))
    if after_trace:
        samba.session.to_rdu(model)
    else:
        pef = str(samba.session.program.pef.path)
        samba.utils.trace_graph(model, named(*batch()), optimizer, pef=pef)
    train(gold, gold_optimizer, range(4, 8))
    assert_same_parameters(model, gold)


@pytest.mark.parametrize("kind", ["momentum", "dampening", "adamw"])
def test_the_state_before_the_first_step_is_none(kind: str) -> None:
    ours, theirs = both(kind)
    model, optimizer = traced(ours)
    gold = twin_of(model)
    gold_optimizer = theirs(gold)
    gold_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    train(gold, gold_optimizer, range(3))
    assert_same_parameters(model, gold)


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.3, "weight_decay": 0.02}])
def test_momentum_at_run_time(options: dict[str, Any]) -> None:
    """Given to a PEF that was compiled without; taken away again, and given once more."""
    model, optimizer = traced(lambda m: sgd(m, **options))
    gold = twin_of(model)
    plain = {key: value for key, value in options.items() if key != "max_grad_norm"}
    gold_optimizer = torch.optim.SGD(gold.parameters(), lr=0.1, **plain)
    for step, momentum in enumerate((0.0, 0.9, 0.9, 0.5, 0.0, 0.7)):
        x, label = batch(seed=step)
        gold_optimizer.param_groups[0]["momentum"] = momentum
        samba.session.run(named(x, label), hyperparam_dict={"momentum": momentum})
        gold_optimizer.zero_grad()
        gold(x, label)[0].backward()
        nn.utils.clip_grad_norm_(gold.parameters(), options.get("max_grad_norm", 1e9))
        gold_optimizer.step()
    assert_same_parameters(model, gold)
    found = optimizer.state_dict()["state"]
    wanted = gold_optimizer.state_dict()["state"]
    for index in wanted:
        torch.testing.assert_close(
            found[index]["momentum_buffer"], wanted[index]["momentum_buffer"], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("limit", [0.05, 1e6])
@pytest.mark.parametrize("kind", [samba.optim.SGD, samba.optim.AdamW])
def test_clipping_as_clip_grad_norm(limit: float, kind: Any) -> None:
    model, _ = traced(lambda m: kind(m.parameters(), lr=0.02, max_grad_norm=limit))
    gold = twin_of(model)
    theirs = torch.optim.SGD if kind is samba.optim.SGD else torch.optim.AdamW
    options = {} if kind is samba.optim.SGD else {"betas": (0.9, 0.997), "weight_decay": 0.0}
    optimizer = theirs(gold.parameters(), lr=0.02, **options)  # type: ignore[arg-type]
    for step in range(5):
        x, label = batch(seed=step)
        samba.session.run(named(x, label))
        optimizer.zero_grad()
        gold(x, label)[0].backward()
        nn.utils.clip_grad_norm_(gold.parameters(), limit)
        optimizer.step()
    assert_same_parameters(model, gold)


def test_two_optimizers_with_parameters_of_their_own() -> None:
    model, made = traced(
        lambda m: [
            samba.optim.SGD(m.first.parameters(), lr=0.1, momentum=0.9),
            samba.optim.AdamW(m.last.parameters(), lr=0.01, betas=(0.9, 0.99)),
        ],
    )
    gold = twin_of(model)
    first = torch.optim.SGD(gold.first.parameters(), lr=0.1, momentum=0.9)
    last = torch.optim.AdamW(
        gold.last.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.0
    )  # fmt: skip
    for step in range(6):
        x, label = batch(seed=step)
        samba.session.run(named(x, label))
        first.zero_grad()
        eager_step(gold, last, x, label)
        first.step()
    assert_same_parameters(model, gold)
    assert made[1].state_dict()["state"][0]["step"] == 6


def test_groups_of_parameters() -> None:
    def groups(model: Any) -> list[dict[str, Any]]:
        return [
            {"params": [model.first.weight, model.last.weight], "weight_decay": 0.1},
            {"params": [model.first.bias, model.last.bias], "weight_decay": 0.0, "lr": 0.3},
        ]

    model, _ = traced(lambda m: samba.optim.SGD(groups(m), lr=0.1))
    gold = twin_of(model)
    train(gold, torch.optim.SGD(groups(gold), lr=0.1), range(5))
    assert_same_parameters(model, gold)
