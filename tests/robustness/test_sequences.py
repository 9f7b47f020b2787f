"""Random sequences of what a program does with a trained model, beside eager: sections one by one,
gradients and outputs read or given in between, weights and states fetched and put back.
"""

# torch's type stubs know nothing of SambaTensors
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sambaflow import samba
from tests.robustness.nets import BATCH, CLASSES, FEATURES, batch, named, traced

BATCHES = [batch(seed=seed) for seed in range(3)]
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


class Net(nn.Module):
    """Running statistics, a buffer that counts, and a second output without a loss."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, CLASSES)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = 1 / (1 + self.calls.clone())
        self.calls += 1
        logits = self.last(torch.tanh(self.norm(self.first(x))) * scale)
        return F.cross_entropy(logits, label), logits


def optimizers_of(model: Any, sgd: Any, adamw: Any) -> list[Any]:
    return [
        sgd(model.first.parameters(), lr=0.1, momentum=0.9),
        adamw(
            [*model.norm.parameters(), *model.last.parameters()],
            lr=0.01,
            betas=(0.9, 0.99),
            eps=1e-3,
            weight_decay=0.1,
        ),
    ]


class Pair:
    """The traced model and its twin, each step done by both."""

    def __init__(self) -> None:
        self.model, self.optimizers = traced(
            lambda m: optimizers_of(m, samba.optim.SGD, samba.optim.AdamW), model=Net()
        )
        samba.session.to_rdu(self.model)
        self.twin = Net()
        self.twin.load_state_dict(deepcopy(self.model.state_dict()))
        self.twins = optimizers_of(self.twin, torch.optim.SGD, torch.optim.AdamW)
        self.loss: torch.Tensor | None = None  # of a FWD that no BCKWD has used yet
        self.logits = torch.empty(0)
        self.ready = False  # for OPT
        self.updated = False
        self.number = 0  # of the batch that FWD has seen
        self.given: torch.Tensor | None = None  # the gradient of the logits

    def run(self, number: int, sections: list[str] | None) -> None:
        self.number = number if "fwd" in (sections or ["fwd"]) else self.number
        x, label = BATCHES[self.number]
        does = [s for s in sections or ("fwd", "bckwd", "opt") if self._may(s, sections)]
        if not does:
            return
        whole = {} if sections is None else {"section_types": does}
        outputs = samba.session.run(named(x, label), self.model.output_tensors, **whole)
        if "fwd" in does:
            wants = self.loss, self.logits = self.twin(x, label)
            for found, wanted in zip(outputs, wants, strict=True):
                torch.testing.assert_close(samba.to_torch(found), wanted.detach(), **TOLERANCE)
        if "bckwd" in does:
            self._backward()
        if "opt" in does:
            for twin in self.twins:
                twin.step()
            self.ready, self.updated = False, True

    def _may(self, section: str, sections: list[str] | None) -> bool:
        """BCKWD uses up a FWD, OPT needs gradients."""
        does = sections or ("fwd", "bckwd", "opt")
        forward = self.loss is not None or "fwd" in does
        if section == "bckwd":
            return forward
        return section == "fwd" or self.ready or ("bckwd" in does and forward)

    def _backward(self) -> None:
        assert self.loss is not None
        for twin in self.twins:
            twin.zero_grad()
        self.loss.backward(retain_graph=self.given is not None)
        if self.given is not None:
            self.logits.backward(self.given)
        self.loss, self.ready = None, True

    def read_gradient(self, name: str) -> None:
        if self.ready and self.loss is None:
            wanted = self.twin.get_parameter(name).grad
            found = self.model.get_parameter(name).sn_grad.torch()
            torch.testing.assert_close(found, wanted, **TOLERANCE)

    def give_gradient(self, scale: float) -> None:
        self.given = torch.full((BATCH, CLASSES), scale)
        self.model.output_tensors[1].sn_grad = self.given

    def compare(self) -> None:
        samba.session.to_cpu(self.model, self.optimizers)
        torch.testing.assert_close(_plain(self.model), dict(self.twin.state_dict()), **TOLERANCE)
        if not self.updated:  # a momentum of 0 is one that is not there yet
            return
        for ours, theirs in zip(self.optimizers, self.twins, strict=True):
            found, wanted = ours.state_dict()["state"], theirs.state_dict()["state"]
            torch.testing.assert_close(found, wanted, **TOLERANCE)

    def put_back(self, factor: float) -> None:
        """Weights from a checkpoint: those of now, smaller."""
        samba.session.to_cpu(self.model, self.optimizers)
        smaller = {
            name: value * factor if value.is_floating_point() else value
            for name, value in deepcopy(dict(self.twin.state_dict())).items()
        }
        self.model.load_state_dict(smaller)
        self.twin.load_state_dict(smaller)
        samba.session.to_rdu(self.model, self.optimizers)


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.as_subclass(torch.Tensor) for name, value in model.state_dict().items()}


SECTIONS = [
    None, ["fwd"], ["bckwd"], ["opt"], ["fwd", "bckwd"], ["bckwd", "opt"], ["fwd", "bckwd", "opt"],
]  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 2), st.sampled_from(SECTIONS)),
    st.tuples(st.just("run"), st.integers(0, 2), st.none()),
    st.tuples(st.just("read_gradient"), st.sampled_from(["first.weight", "norm.bias"])),
    st.tuples(st.just("give_gradient"), st.sampled_from([0.0, 0.01])),
    st.tuples(st.just("compare")),
    st.tuples(st.just("put_back"), st.just(0.9)),
)


@settings(max_examples=25)
@given(st.lists(STEPS, min_size=2, max_size=12))
def test_any_sequence(steps: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    for name, *arguments in steps:
        getattr(pair, name)(*arguments)
    pair.compare()
