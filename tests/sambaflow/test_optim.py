"""`samba.optim`: real torch optimizers that do not load torch._dynamo."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from batucada.errors import OptionError
from sambaflow import samba


def test_defaults_are_sambaflows() -> None:
    optimizer = samba.optim.AdamW(nn.Linear(2, 2).parameters())
    group = optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.9, 0.997), 0, 0.001)
    assert isinstance(optimizer, torch.optim.Optimizer)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (samba.optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (samba.optim.AdamW, torch.optim.AdamW, {"betas": (0.9, 0.99), "weight_decay": 0.1}),
        (samba.optim.Adam, torch.optim.Adam, {"betas": (0.9, 0.99), "weight_decay": 0.1}),
    ],
)
def test_steps_and_states_on_the_host_are_torchs(ours: type, theirs: type, options: dict) -> None:
    weights = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters(), **options)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])
        weights.append(model.weight)
    assert torch.equal(*weights)


def test_device_options_are_kept_and_checked() -> None:
    parameters = list(nn.Linear(2, 2).parameters())
    optimizer = samba.optim.AdamW(parameters, max_grad_norm=1.5, argin_region_name="first")
    assert (optimizer.max_grad_norm, optimizer.argin_region_name) == (1.5, "first")
    copied = deepcopy(optimizer)
    assert (copied.max_grad_norm, copied.argin_region_name) == (1.5, "first")
    with pytest.raises(OptionError, match="max_grad_norm is -1"):
        samba.optim.SGD(parameters, max_grad_norm=-1)


@pytest.mark.slow
def test_importing_and_building_an_optimizer_leaves_dynamo_out() -> None:
    program = """
import sys
import sambaflow
assert "torch" not in sys.modules
from sambaflow import samba
from torch import nn
optimizer = samba.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
optimizer.load_state_dict(optimizer.state_dict())
samba.optim.AdamW(nn.Linear(2, 2).parameters()).zero_grad()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
