"""Outputs are named by the function or the module that makes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from batucada.capture.model import capture


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.layer(x)
        return (
            functional.cross_entropy(hidden, y),
            self.criterion(hidden, y),
            hidden,  # which the losses before converted to a dtype it had already
            functional.gelu(hidden),
            torch.softmax(hidden, -1),
            (hidden + 1).relu_(),
            hidden.max(1).indices,
        )


def test_outputs_are_named_by_what_the_user_called() -> None:
    captured = capture(Net(), (torch.zeros(2, 4), torch.zeros(2).long()), training=False)
    assert [spec.name for spec in captured.outputs] == [
        "net__cross_entropy__outputs__0",
        "net__criterion__crossentropyloss__outputs__0",
        "net__layer__linear__outputs__0",
        "net__gelu__outputs__0",
        "net__softmax__outputs__0",
        "net__relu__outputs__0",
        "net__max__outputs__1",
    ]
