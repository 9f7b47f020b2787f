"""`from_torch_model_`: names, parameters in place, and models that save, load and copy."""

# torch's type stubs know nothing of SambaTensors
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from batucada.errors import OptionError
from sambaflow import samba
from sambaflow.samba.nn.parameter import SambaParameter


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) * self.scale


def converted() -> Tied:
    model = Tied()
    samba.from_torch_model_(model)
    return model


def test_names_and_parameters() -> None:
    linear = nn.Linear(10, 10)
    weight = linear.weight
    samba.from_torch_(linear)
    assert linear.name == "linear"
    assert linear.weight is weight
    assert isinstance(weight, SambaParameter)
    assert weight.sn_name == "linear__weight"


def test_submodules_take_the_prefix() -> None:
    model = Tied()
    samba.from_torch_model_(model, "encoder")
    assert model.first.name == "encoder__tied__first"
    assert model.first.bias.sn_name == "encoder__tied__first__bias"


def test_a_models_own_name_stays() -> None:
    model = nn.Linear(2, 2)
    model.name = "mine"  # type: ignore[assignment]
    samba.from_torch_model_(model)
    assert model.name == "mine"


def test_shared_weights_stay_shared_and_buffers_stay_tensors() -> None:
    model = converted()
    assert model.first.weight is model.second.weight
    assert type(model.scale) is torch.Tensor


def test_an_optimizer_from_before_keeps_its_parameters() -> None:
    model = Tied()
    optimizer = samba.optim.SGD(model.parameters(), lr=0.1)
    samba.from_torch_model_(model)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in model.parameters()}


def test_a_state_dict_loads_with_weights_only(tmp_path: Path) -> None:
    model = converted()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(type(value) is torch.Tensor for value in loaded.values())
    assert all(value.torch_tensor() is value for value in loaded.values())
    Tied().load_state_dict(loaded)


def test_a_whole_model_loads_copies_and_converts_again(tmp_path: Path) -> None:
    model = converted()
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for made in (loaded, copy.deepcopy(model)):
        samba.from_torch_model_(made)
        assert made.first.weight is made.second.weight
        assert made.first.weight is not model.first.weight
        assert made.first.weight.sn_name == "tied__first__weight"
        assert torch.equal(made(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_the_host_model_returns_tensors_that_answer() -> None:
    out = converted()(torch.ones(1, 4))
    assert out.torch() is out
    assert out.host_memory is None
    out.host_memory = True
    assert torch.ones(1).host_memory is None


def test_a_lazy_parameter_is_filled() -> None:
    lazy = SambaParameter(
        shape=(2, 3), dtype=torch.bfloat16, materializer=lambda p: torch.full(p.shape, 2.0)
    )
    assert (lazy.shape, lazy.dtype) == ((2, 3), torch.bfloat16)
    assert lazy.sum() == 12


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(OptionError, match="not list"):
        samba.from_torch_model_([])  # type: ignore[arg-type]
