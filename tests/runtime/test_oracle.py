"""The oracle notices a step that changes what a graph means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.ir.text import parse_graph
from batucada.ir.verify import VerifyError
from batucada.runtime.oracle import check_step

BEFORE = """def f(x: 'f32[2,3] input', w: 'f32[4,3] parameter'):
    v0 = permute(w, dims=(1, 0))  # f32[3,4] FWD
    v1 = matmul(x, v0)  # f32[2,4] FWD
    output('y', v1)
"""


def test_the_same_meaning_passes_and_another_does_not() -> None:
    before = parse_graph(BEFORE)
    check_step("none", before, before)
    halved = BEFORE.replace("output('y', v1)", "v2 = neg(v1)  # f32[2,4] FWD\n    output('y', v2)")
    with pytest.raises(VerifyError, match="wrong: the output y is another"):
        check_step("wrong", before, parse_graph(halved))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_every_step_of_a_compilation(
    tmp_path: Path, optimizer: type[torch.optim.Optimizer]
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self.body(x), y)

    net = Net()
    inputs = (bt.NamedTensor("x", torch.randn(3, 6)), bt.NamedTensor("y", torch.zeros(3).long()))
    made = optimizer(net.parameters(), lr=0.1)  # type: ignore[call-arg]
    options = bt.Options(oracle=True, stop_after="mapping")
    compiled = bt.compile(net, inputs, optimizers=[made], path=tmp_path / "n.pef", options=options)
    assert list(compiled.report["seconds"])[-1] == "mapping"
    assert not (tmp_path / "n.pef").exists()
