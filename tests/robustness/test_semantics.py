"""What the interface promises: sections, gradients, hyperparameters, and whose copy is whose."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.errors import InputError
from sambaflow import samba
from tests.robustness.commands import run
from tests.robustness.nets import (
    Classifier,
    assert_same_parameters,
    batch,
    device_bits,
    eager_step,
    named,
    same_bits,
    sgd,
    traced,
    twin_of,
)

X, LABEL = batch()
INPUTS = named(X, LABEL)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.sn_grad.torch() for name, p in model.named_parameters()}  # type: ignore


def eager_gradients(model: nn.Module, x: torch.Tensor = X) -> dict[str, torch.Tensor]:
    gold = twin_of(model)
    gold(x, LABEL)[0].backward()
    return {name: p.grad for name, p in gold.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-5)


def test_the_host_keeps_its_copy_until_to_cpu() -> None:
    model, _ = traced()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    host_loss = model(X, LABEL)[0].item()
    samba.session.run(INPUTS)
    assert same_bits(before, {n: p.detach() for n, p in model.named_parameters()})
    assert model(X, LABEL)[0].item() == host_loss
    with torch.no_grad():
        model.last.bias += 100.0
    device = samba.session.run(INPUTS, section_types=["FWD"])[0].item()
    assert device < host_loss, "the device does not see the host's change"
    samba.session.to_cpu(model)
    assert model(X, LABEL)[0].item() == pytest.approx(device, rel=1e-5)


def test_a_hyperparameter_keeps_its_last_value() -> None:
    model, _ = traced(lambda m: sgd(m, lr=0.2, weight_decay=0.1))
    gold = twin_of(model)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.2, weight_decay=0.1)
    for hyper in (None, {"lr": 0.05}, None, {"weight_decay": 0.0}, {}, {"lr": 0.2}, {"other": 1.0}):
        optimizer.param_groups[0].update(hyper or {})
        samba.session.run(INPUTS, hyperparam_dict=hyper)
        eager_step(gold, optimizer, X, LABEL)
    assert_same_parameters(model, gold)


def test_one_name_sets_every_optimizer_that_has_it() -> None:
    model, _ = traced(
        lambda m: [
            samba.optim.SGD(m.first.parameters(), lr=0.1, argin_region_name="low_"),
            samba.optim.SGD(m.last.parameters(), lr=0.4),
        ],
    )
    gold = twin_of(model)
    low = torch.optim.SGD(gold.first.parameters(), lr=0.1)
    high = torch.optim.SGD(gold.last.parameters(), lr=0.4)
    both = [(None, 0.1, 0.4), ({"lr": 0.1}, 0.1, 0.1), ({"low_lr": 0.3}, 0.3, 0.1),
            ({"lr": 0.1}, 0.1, 0.1)]  # fmt: skip
    for hyper, low_lr, high_lr in both:
        low.param_groups[0]["lr"], high.param_groups[0]["lr"] = low_lr, high_lr
        samba.session.run(INPUTS, hyperparam_dict=hyper)
        low.zero_grad()
        eager_step(gold, high, X, LABEL)
        low.step()
    assert_same_parameters(model, gold)


def test_sections_in_any_case_and_order() -> None:
    model, _ = traced(lambda m: sgd(m, momentum=0.9))
    program = samba.session.program
    start = device_bits(program)
    samba.session.run(INPUTS, section_types=["fwd"])
    samba.session.run(INPUTS, section_types=["BckWd", "Fwd"])
    assert same_bits(start, device_bits(program))
    samba.session.run(INPUTS, section_types=["opt"])
    parts = device_bits(program)
    for sections in (None, ["FWD", "BCKWD", "GRADNORM", "REDUCE", "OPT"], ["opt", "bckwd", "fwd"]):
        samba.session.to_rdu(model)
        assert same_bits(start, device_bits(program))
        samba.session.run(INPUTS, section_types=sections)
        assert same_bits(parts, device_bits(program)), sections


@pytest.mark.parametrize("section", ["OPT", "BCKWD", "GRADNORM"])
def test_sections_that_need_others_first(section: str) -> None:
    traced()
    before = device_bits(samba.session.program)
    with pytest.raises(InputError, match="first"):
        samba.session.run(INPUTS, section_types=[section])
    assert same_bits(before, device_bits(samba.session.program))


def test_a_backward_pass_ends_what_the_forward_left() -> None:
    traced()
    for sections in (None, ["FWD", "BCKWD"]):
        samba.session.run(INPUTS, section_types=sections)
        with pytest.raises(InputError, match="run FWD first"):
            samba.session.run(INPUTS, section_types=["BCKWD"])


def test_a_loss_on_the_host() -> None:
    model, _ = traced()
    gold = twin_of(model)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.1)
    loss_out, logits_out = model.output_tensors
    loss_out.sn_grad = torch.zeros(())
    for _ in range(3):
        logits = samba.session.run(INPUTS, section_types=["FWD"])[1].torch().requires_grad_()
        (logits.square().sum() / 7).backward()
        logits_out.sn_grad = logits.grad
        samba.session.run(INPUTS, section_types=["BCKWD", "OPT"])
        optimizer.zero_grad()
        (gold(X, LABEL)[1].square().sum() / 7).backward()
        optimizer.step()
    assert_same_parameters(model, gold)
    loss_out.sn_grad = logits_out.sn_grad = None
    samba.session.run(INPUTS, section_types=["FWD", "BCKWD"])
    assert_close(gradients(model), eager_gradients(gold))


def test_gradients_of_outputs_as_an_argument() -> None:
    model, _ = traced()
    gold = twin_of(model)
    scale = torch.randn(gold(X, LABEL)[1].shape)
    samba.session.run(
        INPUTS, section_types=["FWD", "BCKWD"], grad_of_outputs=[torch.tensor(2.0), scale]
    )
    loss, logits = gold(X, LABEL)
    torch.autograd.backward([loss, logits], [torch.tensor(2.0), scale])
    wanted = {name: p.grad for name, p in gold.named_parameters() if p.grad is not None}
    assert_close(gradients(model), wanted)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_after_a_whole_step_are_those_that_bckwd_stores(momentum: float) -> None:
    model, _ = traced(lambda m: sgd(m, momentum=momentum))
    wanted = eager_gradients(model)
    samba.session.run(INPUTS, section_types=["FWD", "BCKWD"])
    stored = gradients(model)
    assert_close(stored, wanted)
    samba.session.run(INPUTS)
    assert same_bits(stored, gradients(model))


@pytest.mark.parametrize(
    "between",
    ["nothing", "forward", "output gradient", "to_rdu", "refused run", "loop"],
)
def test_the_last_gradients_stay_readable(between: str) -> None:
    model, _ = traced()
    samba.session.run(INPUTS, section_types=["FWD", "BCKWD"])
    stored = gradients(model)
    other = named(*batch(seed=9))
    if between == "loop":
        samba.session.program.loop(["x", "label"], [X, LABEL], 1)
    else:
        samba.session.run(INPUTS)
    if between == "forward":
        samba.session.run(other, section_types=["FWD"])
    elif between == "output gradient":
        model.output_tensors[0].sn_grad = torch.tensor(5.0)
    elif between == "to_rdu":
        samba.session.to_rdu(model)
    elif between == "refused run":
        with pytest.raises(InputError):
            samba.session.run(other, hyperparam_dict={"lr": "x"})  # type: ignore[dict-item]
    assert same_bits(stored, gradients(model))


class Deep(nn.Module):
    """Gradients that depend on the weights themselves, and on the output's directly."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.v = nn.Parameter(torch.linspace(0.5, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w.t() * self.w.sum(1) + (self.v * x).sum() + self.v.pow(3).sum()


def test_gradients_that_depend_on_what_the_step_changes() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    model, _ = traced(model=Deep(), inputs=[samba.from_torch(x, "x")])
    model(x).mean().backward()
    inputs = [samba.from_torch(x, "x")]
    samba.session.run(inputs, section_types=["FWD", "BCKWD"])
    stored = gradients(model)
    assert_close(stored, {name: p.grad for name, p in model.named_parameters()})
    samba.session.run(inputs)
    model.output_tensors[0].sn_grad = torch.zeros(5, 3)
    assert same_bits(stored, gradients(model))


def test_the_gradient_of_an_input() -> None:
    inputs = named(X.clone().requires_grad_(), LABEL)
    model, _ = traced(inputs=inputs)
    gold, x = twin_of(model), X.clone().requires_grad_()
    gold(x, LABEL)[0].backward()
    samba.session.run(inputs, section_types=["FWD", "BCKWD"])
    stored = inputs[0].sn_grad.torch()
    assert x.grad is not None
    torch.testing.assert_close(stored, x.grad, atol=1e-5, rtol=1e-5)
    samba.session.run(inputs)
    assert torch.equal(stored, inputs[0].sn_grad.torch())


@pytest.mark.parametrize("change", ["in place", "other memory"])
def test_gradients_after_the_input_was_changed_are_refused(change: str) -> None:
    model, _ = traced()
    x = X.clone()
    samba.session.run(named(x, LABEL))
    if change == "in place":
        x.mul_(2)
    else:
        x.data = torch.randn(16, 12)
    for _ in range(2):
        with pytest.raises(InputError, match="input tensor was changed after the run"):
            _ = model.first.weight.sn_grad
    samba.session.run(named(X, LABEL), section_types=["FWD"])
    with pytest.raises(InputError, match="input tensor was changed after the run"):
        _ = model.first.weight.sn_grad
    samba.session.run(named(X, LABEL))
    assert model.first.weight.sn_grad.torch().abs().sum() > 0


def test_gradients_before_any_run_are_refused() -> None:
    model, _ = traced()
    with pytest.raises(InputError, match="no run with BCKWD"):
        _ = model.first.weight.sn_grad
    samba.session.run(INPUTS, section_types=["FWD"])
    with pytest.raises(InputError, match="no run with BCKWD"):
        _ = model.first.weight.sn_grad


def test_results_keep_their_values() -> None:
    traced()
    kept = [samba.session.run(INPUTS) for _ in range(150)]
    losses = [loss.item() for loss, _ in kept]
    logits = [out.torch().clone() for _, out in kept]
    for _ in range(150):
        samba.session.run(INPUTS)
    assert losses == sorted(losses, reverse=True)
    assert losses == [loss.item() for loss, _ in kept]
    assert all(torch.equal(one, out.torch()) for one, (_, out) in zip(logits, kept, strict=True))


TWO_HUNDRED_STEPS = """
import hashlib, sys
import torch
import batucada as bt

program = bt.load(sys.argv[1])
generator = torch.Generator().manual_seed(4)
shapes = {s.name: s.shape for s in program.manifest.symbols}
for symbol in program.manifest.of_role("parameter"):
    program.write(symbol.name, torch.randn(symbol.shape, generator=generator) / 10)
size = shapes["x"]
for _ in range(int(sys.argv[2])):
    x = torch.randn(size, generator=generator)
    program.run(["x", "label"], [x, torch.randint(5, size[:1], generator=generator)])
weights = {s.name: program.read(s.name) for s in program.manifest.of_role("parameter")}
print(hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest())
torch.save(weights, "w.pt")
"""


def test_the_same_bits_in_every_process(tmp_path: Path) -> None:
    traced(lambda m: sgd(m, momentum=0.9))
    script = tmp_path / "steps.py"
    script.write_text(TWO_HUNDRED_STEPS)
    digests = {
        run(script, samba.session.program.pef.path, 200, folder=tmp_path).out for _ in range(3)
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())


class Large(nn.Module):
    """Layers large enough to be shared by threads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1024, 512)
        self.last = nn.Linear(512, 512)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.last(torch.relu(self.first(x)))
        return nn.functional.cross_entropy(logits, label), logits


def test_one_thread_and_two_agree(tmp_path: Path) -> None:
    model = Large()
    inputs = (
        bt.NamedTensor("x", torch.empty(256, 1024)),
        bt.NamedTensor("label", torch.empty(256, dtype=torch.int64)),
    )
    path = tmp_path / "large.pef"
    bt.compile(model, inputs, optimizers=[torch.optim.SGD(model.parameters(), 0.1)], path=path)
    program = bt.load(path, bt.Options(threads=1))
    assert any(stage.parallel for stage in program.manifest.stages)
    script = tmp_path / "steps.py"
    script.write_text(TWO_HUNDRED_STEPS)
    found: list[dict[str, torch.Tensor]] = []
    for threads in ("1", "2", "2"):
        done = run(script, path, 3, folder=tmp_path, environ={"SN_NUM_THREADS": threads})
        assert done.status == 0, done.err
        found.append(torch.load(tmp_path / "w.pt"))
    assert same_bits(found[1], found[2])
    for name, one in found[0].items():
        torch.testing.assert_close(found[1][name], one, atol=1e-5, rtol=1e-4)


def test_a_traced_model_is_traced_again() -> None:
    """A second trace starts from the host's parameters, whatever the first one's device has."""
    model, optimizer = traced()
    start = device_bits(samba.session.program)
    samba.session.run(INPUTS)
    pef: Any = str(samba.session.program.pef.path)
    samba.utils.trace_graph(model, INPUTS, optimizer, pef=pef)
    assert same_bits(start, device_bits(samba.session.program))
    assert isinstance(model, Classifier)
