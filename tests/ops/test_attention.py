"""What attention means: the references in numpy against PyTorch, gradients too, and what is kept
of it as one operation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

import batucada as bt
from batucada.capture import capture
from batucada.ir.graph import Graph
from batucada.runtime.oracle import evaluate
from tests.ops import flexible_cases
from tests.ops.against_eager import Function


class Attend(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        function: Any = scaled_dot_product_attention
        return function(*tensors, **self.options)


def captured(tensors: list[torch.Tensor], **options: Any) -> Graph:
    named = tuple(bt.NamedTensor(f"x{i}", t) for i, t in enumerate(tensors))
    return capture(Attend(**options), named, training=True).graph


def inputs(heads: int, groups: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, heads, 5, 4), (2, groups, 7, 4), (2, groups, 7, 6))
    return [torch.randn(s, dtype=dtype, generator=generator).requires_grad_(True) for s in shapes]


def seen() -> torch.Tensor:
    mask = torch.arange(35).reshape(5, 7) % 3 > 0
    mask[2] = False
    return mask


CALLS: dict[str, tuple[list[torch.Tensor], dict[str, Any]]] = {
    "plain": (inputs(3, 3), {"scale": 0.3}),
    "causal": (inputs(3, 3), {"is_causal": True}),
    "groups": (inputs(4, 2), {"is_causal": True, "enable_gqa": True}),
    "bool mask": ([*inputs(3, 3), seen()], {}),
    "float mask": ([*inputs(3, 3), torch.linspace(-2, 2, 35).double().reshape(5, 7)], {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_reference_is_pytorchs_attention(name: str) -> None:
    tensors, options = CALLS[name]
    graph = captured(tensors, **options)
    leaves = [t for t in tensors if t.requires_grad]
    out = Attend(**options)(*tensors)
    start = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    expected = [out, *torch.autograd.grad(out, leaves, start)]
    values = {f"x{i}": t.detach().numpy() for i, t in enumerate(tensors)}
    values[graph.by_role("tangent")[0].name] = start.numpy()
    found = evaluate(graph, values)
    assert {"attention", "attention_backward"} <= {node.op for node in graph.nodes}
    for (role, symbol), value in found.items():
        index = 0 if role == "output" else 1 + int(symbol.removeprefix("x"))
        np.testing.assert_allclose(value, expected[index].detach().numpy(), 1e-9, 1e-12)


def test_a_mask_with_a_gradient_is_left_to_products() -> None:
    mask = torch.zeros(5, 7, dtype=torch.float64, requires_grad=True)
    assert "attention" not in {node.op for node in captured([*inputs(3, 3), mask]).nodes}


@pytest.mark.parametrize("name", flexible_cases.NATIVE)
def test_flexible_attention_without_scores(name: str) -> None:
    function = Function(partial(flexible_cases.attend, **flexible_cases.NATIVE[name]))
    tensors = [t.requires_grad_() for t in flexible_cases.inputs()]
    named = tuple(bt.NamedTensor(f"x{i}", t) for i, t in enumerate(tensors))
    ops = {node.op for node in capture(function, named, training=True).graph.nodes}
    assert {"attention", "attention_backward"} <= ops
    assert "contract" not in ops


@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask")
def test_a_mask_of_transformers_for_flexible_attention() -> None:
    masks = pytest.importorskip("transformers.masking_utils")

    def attend(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        blocks = masks.flex_attention_mask(2, 5, 5, attention_mask=seen, device=x.device)
        return flex_attention(x, x, x, block_mask=blocks)

    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    named = (bt.NamedTensor("x", x), bt.NamedTensor("seen", torch.ones(2, 5) > 0))
    graph = capture(Function(attend), named, training=True).graph
    [node] = [node for node in graph.nodes if node.op == "attention_backward"][:1]
    assert node.args[-1].type.shape == (2, 1, 5, 5)


def test_what_pytorch_refuses_is_its_error() -> None:
    query, key, value = inputs(3, 3)
    with pytest.raises(bt.errors.CaptureError, match="RuntimeError"):
        captured([query, key[..., :3], value])
