"""Which updates need which buckets of gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from batucada.capture import append_optimizers, capture, describe_optimizers
from batucada.mapping import Program, Stage, map_graph
from batucada.passes.simplify import simplify

Make = Callable[[nn.Module], list[torch.optim.Optimizer]]


def adamw(net: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(net.parameters())]


def adafactor(net: nn.Module) -> list[torch.optim.Optimizer]:
    """Stages that sum up a gradient hand on to those that use it."""
    return [torch.optim.Adafactor(net.parameters())]


def muon(net: nn.Module) -> list[torch.optim.Optimizer]:
    matrices, biases = ([p for p in net.parameters() if p.dim() == dims] for dims in (2, 1))
    return [torch.optim.Muon(matrices), torch.optim.SGD(biases)]


def clipped(net: nn.Module) -> list[torch.optim.Optimizer]:
    optimizers = adamw(net)
    optimizers[0].max_grad_norm = 1.0  # type: ignore[attr-defined]
    return optimizers


def mapped(make: Make) -> Program:
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    captured = capture(net, torch.zeros(6, 8), training=True)
    specs = describe_optimizers(net, make(net))
    graph = append_optimizers(captured.graph, specs, data_parallel=True)
    return map_graph(simplify(graph), bucket_bytes=300)


@pytest.mark.parametrize("make", [adamw, adafactor, muon])
def test_an_update_needs_no_bucket_behind_its_own(make: Make) -> None:
    program = mapped(make)
    buckets, updates = program.buckets, program.sections["OPT"]
    assert len(buckets) > 2
    assert buckets[-1].updates == len(updates) > buckets[0].updates > 0
    for number, bucket in enumerate(buckets):
        later = {name for other in buckets[number + 1 :] for name in other.buffers}
        behind = {root.buffer for stage in updates[bucket.updates :] for root in stage.roots}
        later |= {name for name in behind if program.buffers[name].space == "arena"}
        first = updates[: bucket.updates]
        read = {name for stage in first for name in _reads(stage, program)}
        assert not read & later


def _reads(stage: Stage, program: Program) -> set[str]:
    found: set[str] = set()
    todo = [arg for node in stage.nodes for arg in node.args if arg not in stage.nodes]
    while todo:
        node = todo.pop()
        found |= {program.places[node]} if node in program.places else set()
        todo += node.args if node not in program.places else ()
    return found


def test_updates_that_clip_need_all_buckets() -> None:
    program = mapped(clipped)
    assert len(program.buckets) > 2
    assert {bucket.updates for bucket in program.buckets} == {0}
