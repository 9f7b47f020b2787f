"""`scaled_dot_product_attention` as one operator of the graph.

PyTorch chooses a fused kernel by device, and for tensors without data it takes two products and a
softmax.  While a model is captured, the operator is a function of ours instead, on the level of
autograd, so that it does not matter who calls it under which name.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from batucada.capture.dispatcher import OURS, instead_of
from batucada.capture.recorder import Recorder

Tensor = torch.Tensor

OURS.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale)"
    " -> (Tensor, Tensor)"
)
OURS.define(
    "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,"
    " Tensor? mask, bool causal, float scale) -> (Tensor, Tensor, Tensor)"
)


class _Attention(torch.autograd.Function):
    """Of 4-d tensors; see `ops/attention.py` for the shapes."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = torch.ops.batucada.attention(q, k, v, mask, causal, scale)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, mask, out, lse)
        ctx.options = causal, scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> Any:
        """A gradient of lse is added to each row of dO V^T: a feature of V that is 1 does that."""
        q, k, v, mask, out, lse = ctx.saved_tensors
        grad = torch.zeros_like(out) if grad is None else grad
        width = v.shape[-1]
        if grad_lse is not None:
            grad = torch.cat([grad, grad_lse.unsqueeze(-1).to(grad.dtype)], -1)
            v, out = pad(v, (0, 1), value=1.0), pad(out, (0, 1))
        found = torch.ops.batucada.attention_backward(grad, q, k, v, out, lse, mask, *ctx.options)
        return (*found[:2], found[2][..., :width], None, None, None)


def attended(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Of 4-d tensors: the output, and the logarithm of the sum of each row, inf where no key is
    seen.
    """
    return _Attention.apply(query, key, value, mask, causal, scale)


@instead_of("scaled_dot_product_attention")
def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    if _is_one_operation(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa):
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
        return _joined(query, key, value, attn_mask, is_causal, factor, enable_gqa)
    decomposed = torch.ops.aten._scaled_dot_product_attention_math.default
    return decomposed(
        query, key, value, attn_mask, dropout_p, is_causal, None,
        scale=scale, enable_gqa=enable_gqa,
    )[0]  # fmt: skip


def _is_one_operation(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float,
    is_causal: bool, enable_gqa: bool,
) -> bool:  # fmt: skip
    """Else the products and the softmax are recorded, or PyTorch raises what is wrong."""
    tensors = (query, key, value)
    if not any(isinstance(mode, Recorder) for mode in _get_current_dispatch_mode_stack()):
        return False
    if dropout_p or any(t.dim() < 2 or not t.numel() for t in tensors):
        return False
    if not query.is_floating_point() or len({t.dtype for t in tensors}) > 1:
        return False
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        return False
    if mask is not None and (is_causal or mask.requires_grad or not _fits(mask, query, key)):
        return False
    if not enable_gqa:
        return _broadcast(*(t.shape[:-2] for t in tensors), *_leading(mask)) is not None
    heads, groups = query.shape[-3:-2], key.shape[-3:-2]
    if not heads or not groups or groups != value.shape[-3:-2] or query.shape[-3] % key.shape[-3]:
        return False
    return _broadcast(*(t.shape[:-3] for t in tensors)) is not None and (
        _broadcast(query.shape[:-2], *_leading(mask)) is not None
    )


def _fits(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    if mask.dim() < 2 or mask.dtype not in (torch.bool, query.dtype):
        return False
    rows, keys = mask.shape[-2:]
    return rows in (1, query.shape[-2]) and keys in (1, key.shape[-2])


def _leading(mask: Tensor | None) -> list[torch.Size]:
    return [] if mask is None else [mask.shape[:-2]]


def _broadcast(*shapes: torch.Size) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        return None


def _joined(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float,
    enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """By tensors of four dimensions: batch, heads, positions, features."""
    leading = [t.shape[:-2] for t in (query, key, value)]
    if enable_gqa:
        leading = [query.shape[:-2], *(torch.Size((*t[:-1], 1)) for t in leading[1:])]
    shape = _broadcast(*leading, *_leading(mask))
    assert shape is not None
    batch, heads = shape[:-1], shape[-1:]

    def four(x: Tensor, groups: torch.Size) -> Tensor:
        x = x.expand(*batch, *groups, *x.shape[-2:])
        return x[(None,) * (4 - x.dim())] if x.dim() < 4 else x.flatten(0, -4)

    groups = key.shape[-3:-2] if enable_gqa else heads
    if mask is not None:
        mask = mask[(None,) * (max(4, len(shape) + 2) - mask.dim())]
        mask = four(mask, mask.shape[-3:-2]) if mask.dim() > 4 else mask
    out, _ = attended(
        four(query, heads), four(key, groups), four(value, groups), mask, causal, scale
    )
    return out if len(shape) == 2 else out.reshape(*shape, *out.shape[-2:])
