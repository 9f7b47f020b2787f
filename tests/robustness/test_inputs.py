"""What a run may be given, and what it says to the rest; nothing is lost when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from batucada.errors import IndexRangeError, InputError
from sambaflow import samba
from tests.robustness.nets import (
    BATCH,
    CLASSES,
    FEATURES,
    batch,
    device_bits,
    named,
    same_bits,
    sgd,
    traced,
)

Wrong = Callable[[torch.Tensor, torch.Tensor], Any]


@pytest.fixture(scope="module", autouse=True)
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    traced(lambda m: sgd(m, momentum=0.9))
    return samba.session.program


def _name(tensor: Any, name: str) -> Any:
    return samba.from_torch(tensor, name)


WRONG: dict[str, tuple[Wrong, str]] = {
    "name": (lambda x, y: [_name(x, "image"), _name(y, "label")], "no input 'image'"),
    "shape": (lambda x, y: named(x[:3], y), r"shape \(3, 12\).*compiled for \(16, 12\)"),
    "dtype": (lambda x, y: named(x.double(), y), "float64; compiled for torch.float32"),
    "float label": (lambda x, y: named(x, y.float()), "float32; compiled for torch.int64"),
    "missing": (lambda x, y: [_name(x, "x")], "'label' is missing"),
    "twice": (lambda x, y: [_name(x, "x"), _name(x, "x")], "'x' is given twice"),
    "none": (lambda x, y: [None, _name(y, "label")], "'x' is missing"),
    "no tensor": (lambda x, y: [_name(x, "x"), "label"], "is a str, not a tensor"),
    "no sequence": (lambda x, y: 5, "not int"),
    "without data": (lambda x, y: named(x.to("meta"), y), "a shape without data"),
    "without data either": (
        lambda x, y: [samba.SambaTensor(shape=x.shape, name="x"), _name(y, "label")],
        "a shape without data",
    ),
    "empty": (lambda x, y: named(x[:0], y[:0]), r"shape \(0, 12\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs(case: str, program: Any) -> None:
    before = device_bits(program)
    make, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        samba.session.run(make(*batch()), hyperparam_dict={"lr": 9.0})
    assert same_bits(before, device_bits(program))
    assert program.hyperparameters["lr"] != 9.0


SAME: dict[str, Wrong] = {
    "not contiguous": lambda x, y: named(x.t().contiguous().t(), y),
    "every second row": lambda x, y: named(x.repeat_interleave(2, 0)[::2], y),
    "other shape": lambda x, y: named(x.reshape(2, 8, FEATURES), y.reshape(BATCH, 1)),
    "int32 labels": lambda x, y: named(x, y.int()),
    "int16 labels": lambda x, y: named(x, y.short()),
    "uint8 labels": lambda x, y: named(x, y.to(torch.uint8)),
    "requires grad": lambda x, y: named(x.clone().requires_grad_(), y),
    "other order": lambda x, y: named(x, y)[::-1],
    "hole": lambda x, y: [None, *named(x, y)],
    "freed": lambda x, y: named(x.clone(), y.clone()),
    "expanded": lambda x, y: named(x, y),
}


@pytest.mark.parametrize("case", SAME)
def test_inputs_that_mean_the_same(case: str) -> None:
    x, label = batch()
    wanted = samba.session.run(named(x, label), section_types=["FWD"])[1].torch()
    found = samba.session.run(SAME[case](x, label), section_types=["FWD"])[1].torch()
    assert torch.equal(wanted, found)


def test_inputs_of_inference_mode() -> None:
    x, label = batch()
    with torch.inference_mode():
        inputs = named(x.clone(), label.clone())
        found = samba.session.run(inputs, section_types=["FWD"])[0].item()
    assert found == samba.session.run(named(x, label), section_types=["FWD"])[0].item()


def test_an_integer_that_the_compiled_width_cannot_hold(tmp_path: Path, program: Any) -> None:
    class Picks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    import batucada as bt

    inputs = (bt.NamedTensor("x", torch.ones(3, dtype=torch.int32)),)
    bt.compile(Picks(), inputs, path=tmp_path / "i.pef")
    loaded = bt.load(tmp_path / "i.pef")
    assert loaded.run(["x"], [torch.tensor([1, 2, 3])])[0].tensor().tolist() == [2, 4, 6]
    with pytest.raises(InputError, match=r"torch.int32 cannot hold"):
        loaded.run(["x"], [torch.tensor([1, 2, 2**40])])


@pytest.mark.parametrize("value", ["fast", None, float("nan"), float("inf")])
def test_a_hyperparameter_that_is_no_number(value: Any, program: Any) -> None:
    before, hyper = device_bits(program), dict(program.hyperparameters)
    with pytest.raises(InputError, match=r"'lr' is .*, not a finite number"):
        samba.session.run(named(*batch()), hyperparam_dict={"momentum": 0.1, "lr": value})
    assert same_bits(before, device_bits(program))
    assert program.hyperparameters == hyper


def test_a_backward_pass_is_of_the_batch_that_went_forward() -> None:
    (x, label), (other, _) = batch(), batch(seed=1)
    for changed in (lambda: named(other, label), lambda: named(x.add_(1), label)):
        samba.session.run(named(x, label), section_types=["fwd"])
        with pytest.raises(InputError, match="BCKWD is given another 'x' than FWD had"):
            samba.session.run(changed(), section_types=["bckwd"])
    samba.session.run(named(x, label), section_types=["fwd"])
    samba.session.run(named(x.clone(), label.int()), section_types=["bckwd"])


@pytest.mark.parametrize(
    ("sections", "said"),
    [(["FWD", "UP"], "no section 'UP'"), ([], "empty"), ("sideways", "no section 'SIDEWAYS'")],
)
def test_sections_that_make_no_sense(sections: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        samba.session.run(named(*batch()), section_types=sections)


@pytest.mark.parametrize("checked", ["0", "1"])
@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("training", [True, False])
def test_labels_out_of_range(
    checked: str, size: int, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATUCADA_CHECKED", checked)
    traced((lambda m: sgd(m, momentum=0.9)) if training else None, size=size)
    program = samba.session.program
    x, good = batch(size)
    samba.session.run(named(x, good))
    before = device_bits(program)
    for wrong in (-1, CLASSES, 2**40, -(2**62)):
        for place in {0, size - 1}:
            label = good.clone()
            label[place] = wrong
            with pytest.raises(IndexRangeError, match=f"{wrong} in the input 'label'.*0 to 4"):
                samba.session.run(named(x, label))
            with pytest.raises(IndexRangeError):
                samba.session.run(named(x, label), section_types=["fwd"])
    with pytest.raises(IndexRangeError):
        program.loop(["x", "label"], [x, label], 3)
    assert same_bits(before, device_bits(program))
    assert torch.isfinite(samba.session.run(named(x, good))[0].torch())


def test_ignored_labels_are_no_mistake() -> None:
    x, label = batch()
    label[::2] = -100
    loss = samba.session.run(named(x, label), section_types=["FWD"])[0].item()
    logits = samba.session.run(named(x, label), section_types=["FWD"])[1].torch()
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item(), rel=1e-5)
