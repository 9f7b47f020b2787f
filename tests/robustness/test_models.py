"""Models that cannot be compiled say where; odd ones that can be, are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.errors import BatucadaError, CaptureError, InputError, UnsupportedOpError
from sambaflow import samba
from tests.robustness.commands import pefs, run
from tests.robustness.nets import batch, named, sgd, traced

X = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """A layer, and whatever a test does with it; the line that cannot be compiled ends in WRONG."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)


class Noise(Net):
    def forward(self, x):
        return self.linear(x) * torch.poisson(x.abs(), generator=torch.Generator())  # WRONG


class Branch(Net):
    def forward(self, x):
        y = self.linear(x)
        if x.sum() > 0:  # WRONG
            return y.sum()
        return -y.sum()


class Item(Net):
    def forward(self, x):
        return self.linear(x).sum() * max(x.max().item(), 1.0)  # WRONG


class Nonzero(Net):
    def forward(self, x):
        return self.linear(x)[x.nonzero()[0]].sum()  # WRONG


class InputInPlace(Net):
    def forward(self, x):
        x.mul_(2)  # WRONG
        return self.linear(x).sum()


class Outside(Net):
    kept = torch.zeros(12)

    def forward(self, x):
        self.kept.copy_(x[0])  # WRONG
        return self.linear(x).sum()


class Raises(Net):
    def forward(self, x):
        return self.linear(x) @ torch.ones(5, 5)  # WRONG


class Packed(Net):
    def forward(self, x):
        lengths = x[:, 0].long()
        packed = nn.utils.rnn.pack_padded_sequence(self.linear(x), lengths, True, False)
        return packed.data.square().sum()  # WRONG


class Sparse(Net):
    def forward(self, x):
        return torch.eye(6).to_sparse() @ self.linear(x)  # WRONG


class Ragged(Net):
    def forward(self, x):
        return torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, 2, 6])) * 2  # WRONG


class Numpy(Net):
    def forward(self, x):
        return self.linear(x) + torch.from_numpy(x.numpy() * 2)  # WRONG


CANNOT = [
    Noise, Branch, Item, Nonzero, InputInPlace, Outside, Raises, Packed,
    Sparse, Ragged, Numpy,
]  # fmt: skip


def line_of(model: type[nn.Module]) -> int:
    source, first = inspect.getsourcelines(model)
    return first + next(n for n, line in enumerate(source) if line.rstrip().endswith("# WRONG"))


def compiled(model: nn.Module, folder: Path, optimizers: Any = None) -> Any:
    inputs = (bt.NamedTensor("x", X),)
    path = folder / "net.pef"
    bt.compile(model, inputs, optimizers=optimizers or [sgd(model)], path=path)
    program = bt.load(path)
    program.attach(model, inputs, optimizers=optimizers or [sgd(model)])
    return program


@pytest.mark.parametrize("model", CANNOT, ids=lambda model: model.__name__)
def test_what_cannot_be_compiled_says_where(model: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(CaptureError) as caught:
        compiled(model(), tmp_path)
    assert re.search(rf"test_models\.py:{line_of(model)}\b", str(caught.value)), caught.value
    assert pefs(tmp_path) == []
    assert torch.isfinite(X).all(), "the host's tensors are not touched"


def test_a_model_is_whole_after_a_failed_compile(tmp_path: Path) -> None:
    model = Noise()
    weight = model.linear.weight
    with pytest.raises(UnsupportedOpError, match="poisson"):
        compiled(model, tmp_path)
    assert model.linear.weight is weight
    assert not weight.is_meta


class NoTensor(Net):
    def forward(self, x):
        self.linear(x)
        return 3


class Detached(Net):
    def forward(self, x):
        return self.linear(x).detach().sum()


@pytest.mark.parametrize(
    ("model", "said"), [(NoTensor, "returns no tensor"), (Detached, "requires a gradient")]
)
def test_outputs_that_cannot_be_trained(model: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=said):
        compiled(model(), tmp_path)
    assert pefs(tmp_path) == []


class Plain(Net):
    def forward(self, x):
        return self.linear(x).square().mean()


def test_optimizers_that_cannot_be_compiled(tmp_path: Path) -> None:
    model, stranger = Plain(), nn.Linear(2, 2)
    weight = [model.linear.weight]
    for made, said in (
        ([torch.optim.LBFGS(model.parameters())], "LBFGS cannot be compiled: it evaluates"),
        ([sgd(model), torch.optim.SGD(weight, 0.1)], "linear__weight belongs to two optimizers"),
        ([sgd(stranger)], r"shape \(2, 2\) that the model has not"),
    ):
        with pytest.raises(CaptureError, match=said):
            compiled(model, tmp_path, made)
    assert pefs(tmp_path) == []


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    x, label = batch()
    with pytest.raises(BatucadaError, match="'x'"):
        traced(inputs=[samba.from_torch(x, "x"), samba.from_torch(label, "x")])


@pytest.mark.parametrize(
    "name", ["s0", "s12_sums", "sgd0__lr", "adamw1__step", "x__grad", "x__next"]
)
def test_names_that_the_compiler_gives(name: str, tmp_path: Path) -> None:
    model = Plain()
    with pytest.raises(InputError, match=f"cannot be called '{name}'"):
        bt.compile(model, (bt.NamedTensor(name, X),), path=tmp_path / "net.pef")


@pytest.mark.parametrize(
    "name", ["memory", "gradients", "pool", "step", "plain__outputs__0", "my x", "for"]
)
def test_names_that_only_look_odd(name: str, tmp_path: Path) -> None:
    model, path = Plain(), tmp_path / "net.pef"
    inputs = (bt.NamedTensor(name, X),)
    bt.compile(model, inputs, optimizers=[sgd(model)], path=path)
    program = bt.load(path)
    program.attach(model, inputs, optimizers=[sgd(model)])
    wanted = pytest.approx(model(X).item(), rel=1e-5)
    assert program.run([name], [X])[0].tensor().item() == wanted
    program.loop([name], [X], 3)
    with pytest.raises(InputError, match="given twice"):
        program.run([name, name], [X, X])


# --- odd, and yet compiled ---
class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(12, 12)
        self.linear.weight.requires_grad_(False)

    def forward(self, x):
        return self.last(self.linear(x)).square().mean()


class Unused(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(3, 3)


class Shared(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(12, 12)
        self.again.weight = self.linear.weight

    def forward(self, x):
        return self.again(torch.tanh(self.linear(x))).square().mean()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("model", [Frozen, Unused, Shared], ids=lambda model: model.__name__)
def test_odd_parameters_train_as_in_pytorch(model: Any, kind: Any, tmp_path: Path) -> None:
    ours, gold = model(), model()
    gold.load_state_dict(ours.state_dict())
    optimizer, gold_optimizer = kind(ours.parameters(), lr=0.05), kind(gold.parameters(), lr=0.05)
    program = compiled(ours, tmp_path, [optimizer])
    for step in range(5):
        hyper = {"momentum": 0.9} if kind is torch.optim.SGD and step > 1 else None
        gold_optimizer.param_groups[0].update(hyper or {})
        program.run(["x"], [X], hyper=hyper)
        gold_optimizer.zero_grad()
        gold(X).backward()
        gold_optimizer.step()
    program.to_host(ours, [optimizer])
    for one, other in zip(ours.parameters(), gold.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    found, wanted = optimizer.state_dict()["state"], gold_optimizer.state_dict()["state"]
    assert found.keys() == wanted.keys()


PROGRAM = """
import sys
import torch
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        return (self.linear(x) * torch.poisson(x.abs(), generator=torch.Generator())).sum()


args = parse_app_args(sys.argv[1:])
model = Net()
samba.from_torch_(model)
optimizer = samba.optim.SGD(model.parameters())
samba.session.compile(model, [samba.randn(3, 4, name="x")], optimizer, config_dict=vars(args))
"""


def test_the_command_ends_with_the_message_alone(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    error = run(tmp_path / "app.py", "compile", "--pef-name=app", folder=tmp_path).refused()
    assert re.search(r"poisson\S* at app\.py:14", error)
    assert pefs(tmp_path) == []


def test_named_inputs_stay_what_they_were() -> None:
    x, label = batch()
    model, _ = traced(inputs=named(x, label))
    assert not x.is_meta
    assert all(not p.is_meta for p in model.parameters())
