"""Attention as one operation, forward and backward, so that no score matrix is ever stored.

The method is FlashAttention's (Dao, Fu, Ermon, Rudra, Ré, "FlashAttention: Fast and
memory-efficient exact attention with IO-awareness", NeurIPS 2022): the backward pass computes the
probabilities again, from the logarithm of each row's sum.

Queries are [B, H, T, D], keys [B, G, S, D] and values [B, G, S, E], where query head h reads key
head h // (H / G); an optional mask, bool or float, broadcasts to [B, H, T, S].  Results lie as
[B, T, H, E], the order in which the heads are joined again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import FLOATS, Type
from batucada.ops.base import Op, TypeRuleError, define, make, translates
from batucada.ops.view import permute

Array = np.ndarray[Any, np.dtype[Any]]

OUT, LSE = 0, 1
DQ, DK, DV = 0, 1, 2


def _check(q: Type, k: Type, v: Type, mask: Type | None) -> None:
    fits = all(len(t.shape) == 4 for t in (q, k, v)) and q.dtype == k.dtype == v.dtype
    if not fits or q.dtype not in FLOATS:
        raise TypeRuleError(f"attention takes 4-d floats of one dtype, not {q}, {k} and {v}")
    batch, heads, rows, depth = q.shape
    groups, keys = k.shape[1:3]
    fits = k.shape[0] == v.shape[0] == batch and v.shape[1:3] == (groups, keys)
    if not fits or k.shape[3] != depth or heads % groups:
        raise TypeRuleError(f"attention: {q}, {k} and {v} do not fit")
    if mask is None:
        return
    pairs = zip(mask.shape, (batch, heads, rows, keys), strict=True) if len(mask.shape) == 4 else ()
    if len(mask.shape) != 4 or any(extent not in (1, whole) for extent, whole in pairs):
        raise TypeRuleError(f"attention: the mask {mask} does not broadcast over {q} and {k}")


def accumulator(q: Type) -> Any:
    """The dtype of sums over inputs of this type."""
    return "f64" if q.dtype == "f64" else "f32"


def _infer(
    q: Type, k: Type, v: Type, mask: Type | None = None, *, causal: bool, scale: float, result: int
) -> Type:
    _check(q, k, v, mask)
    batch, heads, rows, _ = q.shape
    if result == LSE:
        return Type(accumulator(q), (batch, heads, rows))
    return Type(q.dtype, (batch, rows, heads, v.shape[3]))


def _infer_backward(
    grad: Type, q: Type, k: Type, v: Type, out: Type, lse: Type, mask: Type | None = None,
    *, causal: bool, scale: float, result: int,
) -> Type:  # fmt: skip
    _check(q, k, v, mask)
    expected = (*q.shape[:3], v.shape[3])
    if grad.shape != expected or out.shape != expected or lse.shape != q.shape[:3]:
        raise TypeRuleError(f"attention_backward: {grad}, {out} and {lse} do not fit {q} and {v}")
    batch, heads, size, width = (q, k, v)[result].shape
    return Type(q.dtype, (batch, size, heads, width))


def _scores(q: Array, k: Array, mask: Array | None, causal: bool, scale: float) -> Array:
    scores = (q * q.dtype.type(scale)) @ np.swapaxes(k, 2, 3)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[2:], dtype=np.bool_), scores, -np.inf)
    return scores


def _wide(*arrays: Array) -> list[Array]:
    return [a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays]


def _repeated(x: Array, heads: int) -> Array:
    return np.repeat(x, heads // x.shape[1], axis=1)


def _ref(
    q: Array, k: Array, v: Array, mask: Array | None = None,
    *, causal: bool, scale: float, result: int,
) -> Array:  # fmt: skip
    """A row without any key gives 0; its logarithm is inf, so that its probabilities are 0."""
    narrow, heads = q.dtype, q.shape[1]
    q, k, v = _wide(q, k, v)
    scores = _scores(q, _repeated(k, heads), mask, causal, scale)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = weights.sum(-1, keepdims=True)
    if result == LSE:
        lse = np.where(total == 0, np.inf, top + np.log(total))
        return lse[..., 0].astype(q.dtype)
    out = weights @ _repeated(v, heads) / np.where(total == 0, 1, total)
    return out.swapaxes(1, 2).astype(narrow)


def _ref_backward(
    grad: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, mask: Array | None = None,
    *, causal: bool, scale: float, result: int,
) -> Array:  # fmt: skip
    """dV = P^T dO;  dS = P * (dO V^T - rowsum(dO * O));  dQ = scale dS K;  dK = scale dS^T Q"""
    narrow, heads = q.dtype, q.shape[1]
    grad, q, k, v, out = _wide(grad, q, k, v, out)
    k, v, groups = _repeated(k, heads), _repeated(v, heads), k.shape[1]
    weights = np.exp(_scores(q, k, mask, causal, scale) - lse[..., None])
    if result == DV:
        found = np.swapaxes(weights, 2, 3) @ grad
    else:
        products = grad @ np.swapaxes(v, 2, 3) - (grad * out).sum(-1, keepdims=True)
        scores = weights * products * q.dtype.type(scale)
        found = scores @ k if result == DQ else np.swapaxes(scores, 2, 3) @ q
    if result != DQ:
        shape = found.shape
        found = found.reshape(shape[0], groups, heads // groups, *shape[2:]).sum(2)
    return found.swapaxes(1, 2).astype(narrow)


def _pairs(q: Type, k: Type, causal: bool) -> int:
    """How many scores are computed, over all heads."""
    rows, keys = q.shape[2], k.shape[2]
    first = min(rows, keys)
    triangle = first * (first + 1) // 2 + (rows - first) * keys
    return q.shape[0] * q.shape[1] * (triangle if causal else rows * keys)


def _cost(out: Type, q: Type, k: Type, v: Type, *_: Type, causal: bool, result: int, **__: Any):
    return 2 * _pairs(q, k, causal) * (q.shape[3] + v.shape[3]) if result == OUT else 0


def _cost_backward(
    out: Type, grad: Type, q: Type, k: Type, v: Type, *_: Type,
    causal: bool, result: int, **__: Any,
) -> int:  # fmt: skip
    """The scores and what their gradient needs count for the gradient of the queries."""
    widths = (2 * q.shape[3] + v.shape[3], q.shape[3], v.shape[3])
    return 2 * _pairs(q, k, causal) * widths[result]


define(Op("attention", "attention", _infer, _ref, cost=_cost))
define(Op("attention_backward", "attention", _infer_backward, _ref_backward, cost=_cost_backward))

_HEADS_FIRST = (0, 2, 1, 3)


@translates("batucada.attention.default")
def _attention(
    q: Node, k: Node, v: Node, mask: Node | None, causal: bool, scale: float
) -> tuple[Node, Node]:
    """softmax(scale q k^T + mask) v, and the logarithm of the sum of each row"""
    args = (q, k, v) if mask is None else (q, k, v, mask)
    out = make("attention", *args, causal=causal, scale=scale, result=OUT)
    lse = make("attention", *args, causal=causal, scale=scale, result=LSE)
    return permute(out, _HEADS_FIRST), lse


@translates("batucada.attention_backward.default")
def _attention_backward(
    grad: Node, q: Node, k: Node, v: Node, out: Node, lse: Node, mask: Node | None,
    causal: bool, scale: float,
) -> tuple[Node, ...]:  # fmt: skip
    args = (grad, q, k, v, out, lse) if mask is None else (grad, q, k, v, out, lse, mask)
    return tuple(
        permute(
            make("attention_backward", *args, causal=causal, scale=scale, result=result),
            _HEADS_FIRST,
        )
        for result in (DQ, DK, DV)
    )
