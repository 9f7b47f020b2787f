"""Attention is one stage each way, and nothing of the size of its scores lies in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import batucada as bt
from batucada.capture import capture
from batucada.mapping import Program, map_graph
from batucada.passes.simplify import simplify

BATCH, HEADS, SIZE, DEPTH = 2, 3, 300, 8


class Attend(nn.Module):
    """Self-attention of one projection; `options` are those of scaled_dot_product_attention."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.project = nn.Linear(HEADS * DEPTH, HEADS * DEPTH)
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.project(x).view(BATCH, SIZE, HEADS, DEPTH).transpose(1, 2)
        return scaled_dot_product_attention(heads, heads, heads, **self.options).transpose(1, 2)


def mapped(**options: Any) -> Program:
    x = torch.empty(BATCH, SIZE, HEADS * DEPTH)
    captured = capture(Attend(**options), (bt.NamedTensor("x", x),), training=True)
    return map_graph(simplify(captured.graph))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}], ids=["plain", "causal"])
def test_no_buffer_has_the_size_of_the_scores(options: dict[str, Any]) -> None:
    program = mapped(**options)
    stages = [stage for stages in program.sections.values() for stage in stages]
    calls = [[n.op for n in s.nodes] for s in stages if s.nodes[0].op.startswith("attention")]
    assert calls == [["attention"] * 2, ["attention_backward"] * 3]
    largest = max(buffer.type.size for buffer in program.buffers.values())
    assert largest < BATCH * HEADS * SIZE * SIZE
