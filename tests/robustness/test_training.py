"""Training as programs write it, against eager PyTorch: inputs, weights, modes, schedules."""

# torch's type stubs know nothing of SambaTensors
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from batucada.errors import CaptureError, InputError, PefMismatchError
from sambaflow import samba
from tests.robustness.nets import Classifier, batch, named, sgd, traced

X, LABEL = batch()
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def plain(model: nn.Module) -> Any:
    """The model before training, for eager PyTorch."""
    return deepcopy(model)


def assert_trained_alike(model: nn.Module, gold: nn.Module, **tolerance: float) -> None:
    """Parameters and buffers, after `to_cpu`."""
    samba.session.to_cpu(model)
    wanted = gold.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, wanted[name], **(tolerance or TOLERANCE))


class Logits(nn.Module):
    """Several inputs in a list and a dict, no loss: that is the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)

    def forward(self, parts: list[torch.Tensor], more: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(parts[0] + 2 * parts[1]) * more["scale"]


def test_a_model_without_a_loss_and_with_nested_inputs() -> None:
    a, b, scale = X, X.flip(0).contiguous(), torch.rand(16, 5)
    inputs = ([samba.from_torch(a, "a"), samba.from_torch(b, "b")],
              {"scale": samba.from_torch(scale, "scale")})  # fmt: skip
    model = Logits()
    gold = plain(model)
    path = samba.session.compile(
        samba.from_torch_model_(model), inputs, sgd(model), config_dict=_output("nested")
    )
    samba.utils.trace_graph(model, inputs, sgd(model), pef=path)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.1)
    by_key = {"parts": list(inputs[0]), "more": dict(inputs[1])}
    for given in (inputs, by_key, [*inputs[0], inputs[1]["scale"]]):
        (out,) = samba.session.run(given, model.output_tensors, section_types=["fwd"])
        logits = samba.to_torch(out).requires_grad_()
        F.cross_entropy(logits, LABEL).backward()
        traced: Any = model.output_tensors
        traced[0].sn_grad = logits.grad
        assert torch.equal(traced[0].sn_grad.torch(), logits.grad)
        samba.session.run(given, model.output_tensors, section_types=["bckwd", "opt"])
        optimizer.zero_grad()
        F.cross_entropy(gold([a, b], {"scale": scale}), LABEL).backward()
        optimizer.step()
    assert_trained_alike(model, gold)


def _output(name: str) -> dict[str, str]:
    from tests.robustness.nets import _folder

    return {"pef_name": name, "output_folder": _folder.name}


class Tied(nn.Module):
    """One weight for an embedding and the last layer, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.middle = nn.Linear(6, 6)
        self.middle.weight.requires_grad = False
        self.last = nn.Linear(6, 7, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.last(torch.tanh(self.middle(self.embedding(ids)))), label)


IDS = torch.tensor([1, 5, 1, 0])
TIED_INPUTS = (samba.from_torch(IDS, "ids"), samba.from_torch(IDS.flip(0).contiguous(), "label"))


def tied() -> tuple[Tied, Any]:
    model = Tied()
    return traced(
        lambda m: samba.optim.AdamW(m.parameters(), lr=0.05, weight_decay=0.1),
        model=model, inputs=TIED_INPUTS,
    )  # fmt: skip


def test_a_shared_weight_is_updated_once_and_a_frozen_one_never(tmp_path: Path) -> None:
    model, optimizer = tied()
    gold = plain(model)
    theirs = torch.optim.AdamW(gold.parameters(), lr=0.05, betas=(0.9, 0.997), weight_decay=0.1)
    for _ in range(4):
        samba.session.run(TIED_INPUTS)
        theirs.zero_grad()
        gold(IDS, IDS.flip(0)).backward()
        theirs.step()
    assert_trained_alike(model, gold)
    assert model.last.weight is model.embedding.weight
    with pytest.raises(InputError, match="computes no gradient of 'tied__middle__weight'"):
        _ = model.middle.weight.sn_grad

    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c")
    saved = torch.load(tmp_path / "c")
    resumed = Tied()
    resumed.load_state_dict(saved["model"])
    assert resumed.last.weight is resumed.embedding.weight
    optimizer = torch.optim.AdamW(resumed.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    assert saved["optimizer"]["state"].keys() == theirs.state_dict()["state"].keys()
    for twin, with_optimizer in ((resumed, optimizer), (gold, theirs)):
        with_optimizer.zero_grad()
        twin(IDS, IDS.flip(0)).backward()
        with_optimizer.step()
    torch.testing.assert_close(resumed.state_dict(), gold.state_dict(), **TOLERANCE)


class UnderTwoNames(nn.Module):
    """One module in two places, and both at once in a third."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12))
        self.all = nn.ModuleList([self.first, nn.Linear(12, 5)])

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.all[1](self.second(torch.tanh(self.first(x)))), label)


class Running(nn.Module):
    """Scales by statistics as they were before this batch and after half of it: autograd keeps
    both, whatever the buffer holds in the end."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)
        self.register_buffer("scale", torch.ones(12))

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        first, last = x.chunk(2)
        before = self.scale.clone()
        self.scale.mul_(0.5).add_(first.abs().mean(0))
        halfway = self.scale.clone()
        self.scale.mul_(0.5).add_(last.abs().mean(0))
        weighted = (self.linear.weight / before) * halfway
        return F.cross_entropy(F.linear(x, weighted, self.linear.bias), label)


def test_the_backward_pass_has_what_a_buffer_held_earlier() -> None:
    assert_trains_as_eager(Running())


def test_a_module_under_two_names_is_one() -> None:
    assert_trains_as_eager(UnderTwoNames())


def assert_trains_as_eager(model: nn.Module) -> None:
    """Three steps of SGD on one batch."""
    inputs = (samba.from_torch(X, "x"), samba.from_torch(LABEL, "label"))
    traced(sgd, model=model, inputs=inputs)
    gold = plain(model)
    theirs = torch.optim.SGD(gold.parameters(), lr=0.1)
    for _ in range(3):
        samba.session.run(inputs)
        theirs.zero_grad()
        gold(X, LABEL).backward()
        theirs.step()
    assert_trained_alike(model, gold)


def test_freezing_and_thawing_after_the_compilation_are_refused() -> None:
    model, optimizer = tied()
    pef = str(samba.session.program.pef.path)
    model.middle.weight.requires_grad = True
    with pytest.raises(PefMismatchError, match=r"middle__weight had no gradient .* has a gradient"):
        samba.utils.trace_graph(model, TIED_INPUTS, optimizer, pef=pef)
    model.middle.weight.requires_grad = model.embedding.weight.requires_grad = False
    with pytest.raises(PefMismatchError, match=r"embedding__weight had a gradient .* has no"):
        samba.utils.trace_graph(model, TIED_INPUTS, optimizer, pef=pef)


class Normed(nn.Module):
    """Batch norm: buffers, and a forward that depends on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.last(torch.relu(self.norm(self.first(x))))
        return F.cross_entropy(logits, label), logits


def test_running_statistics_move_with_each_forward_section() -> None:
    model, _ = traced(model=Normed())
    gold = plain(model)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.1)
    for step in range(3):
        x, label = batch(seed=step)
        samba.session.run(named(x, label), section_types=["FWD"])
        samba.session.run(named(x, label), section_types=["BCKWD", "OPT"])
        optimizer.zero_grad()
        gold(x, label)[0].backward()
        optimizer.step()
    samba.session.run(named(X, LABEL), section_types=["FWD"])
    gold(X, LABEL)
    assert_trained_alike(model, gold)
    assert model.norm.num_batches_tracked == 4


class Recomputed(nn.Module):
    """Its normalized layer runs again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(12, 5), nn.BatchNorm1d(5)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        x = checkpoint(lambda x: self.norm(x).relu(), self.linear(x), use_reentrant=self.reentrant)
        return F.cross_entropy(x, label)


@pytest.mark.parametrize("reentrant", [False, True])
def test_running_statistics_move_again_where_a_checkpoint_runs_again(reentrant: bool) -> None:
    model, _ = traced(model=Recomputed(reentrant))
    gold = plain(model)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.1)
    for calls in ([["FWD", "BCKWD", "OPT"]], [["FWD"], ["BCKWD", "OPT"]]):
        for sections in calls:
            samba.session.run(named(X, LABEL), section_types=sections)
        optimizer.zero_grad()
        gold(X, LABEL).backward()
        optimizer.step()
    assert gold.norm.num_batches_tracked == 4
    assert_trained_alike(model, gold)


def test_a_pef_is_of_one_mode() -> None:
    model, optimizer = traced(model=Normed())
    pef = str(samba.session.program.pef.path)
    samba.session.run(named(X, LABEL))
    samba.session.to_cpu(model)
    model.eval()
    with pytest.raises(PefMismatchError, match=r"compiled after model\.train\(\)"):
        samba.utils.trace_graph(model, named(X, LABEL), optimizer, pef=pef)
    assert not model.norm.training
    wanted = model(X, LABEL)[0].item()
    traced(None, model=model)  # a PEF for inference, compiled in this mode
    for _ in range(2):
        assert samba.session.run(named(X, LABEL))[0].item() == pytest.approx(wanted, rel=1e-5)
    model.train()
    samba.utils.trace_graph(model, named(X, LABEL), None, pef=pef)
    trained = plain(model)(X, LABEL)[0].item()
    assert samba.session.run(named(X, LABEL))[0].item() == pytest.approx(trained, rel=1e-5)


def test_a_lazy_layer_has_a_shape_after_a_run_on_the_host() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    inputs = [samba.from_torch(X, "input")]
    with pytest.raises(CaptureError, match=r"0\.weight has no shape yet; run the model once"):
        samba.session.compile(model, inputs, inference=True, config_dict=_output("lazy"))
    model(X)
    traced(None, model=model, inputs=inputs)
    torch.testing.assert_close(samba.session.run(inputs)[0].torch(), model(X), **TOLERANCE)


def test_a_schedule_of_torch_drives_the_rate() -> None:
    model, optimizer = traced(lambda m: samba.optim.SGD(m.parameters(), lr=torch.tensor(0.1)))
    gold = plain(model)
    theirs = torch.optim.SGD(gold.parameters(), lr=0.1)
    ours = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    schedule = torch.optim.lr_scheduler.StepLR(theirs, 1, 0.5)
    for _ in range(4):
        rate = optimizer.param_groups[0]["lr"]
        samba.session.run(named(X, LABEL), hyperparam_dict={"lr": rate})
        ours.step()
        theirs.zero_grad()
        gold(X, LABEL)[0].backward()
        theirs.step()
        schedule.step()
    assert_trained_alike(model, gold)


def test_options_that_are_compiled_in_have_no_other_value_at_run_time() -> None:
    traced(lambda m: samba.optim.AdamW(m.parameters(), foreach=True, max_grad_norm=1.0))
    same = {"betas": (0.9, 0.997), "eps": 1e-8, "max_grad_norm": 1.0, "unheard_of": "x"}
    samba.session.run(named(X, LABEL), hyperparam_dict=same)
    for name, value in {"betas": (0.9, 0.9), "eps": 1e-4, "max_grad_norm": 2.0}.items():
        with pytest.raises(InputError, match="compiled into the program"):
            samba.session.run(named(X, LABEL), hyperparam_dict={name: value})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_parameters_of_another_width(dtype: torch.dtype) -> None:
    """States have the parameter's dtype, as in PyTorch; the arithmetic is in f32 at least."""
    model = Classifier().to(dtype)
    x = X.to(dtype)
    inputs = named(x, LABEL)
    _, ours = traced(
        lambda m: sgd(m, momentum=0.9, weight_decay=0.1, max_grad_norm=1.0),
        model=model, inputs=inputs,
    )  # fmt: skip
    gold = plain(model)
    optimizer = torch.optim.SGD(gold.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        samba.session.run(inputs)
        optimizer.zero_grad()
        gold(x, LABEL)[0].backward()
        nn.utils.clip_grad_norm_(gold.parameters(), 1.0)
        optimizer.step()
    tolerance = {"atol": 0.01, "rtol": 0.02} if dtype == torch.bfloat16 else TOLERANCE
    assert_trained_alike(model, gold, **tolerance)
    for found, wanted in zip(
        ours.state_dict()["state"].values(), optimizer.state_dict()["state"].values(), strict=True
    ):
        torch.testing.assert_close(
            found["momentum_buffer"], wanted["momentum_buffer"], **tolerance
        )  # fmt: skip


def test_a_normed_layer_in_bfloat16() -> None:
    """Integers and narrow floats side by side: labels, counts, statistics."""
    model = Normed().bfloat16()
    inputs = named(X.bfloat16(), LABEL)
    traced(model=model, inputs=inputs)
    wanted, _ = plain(model)(X.bfloat16(), LABEL)
    found = samba.session.run(inputs)[0].torch()
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)
