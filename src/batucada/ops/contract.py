"""Products: `matmul` of [..., M, K] and [..., K, N], batch dimensions broadcast, and `contract` of
[B..., M..., K...] and [B..., K..., N] over several dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Type
from batucada.ops.arithmetic import scaled_sum
from batucada.ops.base import Op, TypeRuleError, broadcast, define, make, translates
from batucada.ops.create import full
from batucada.ops.elementwise import cast, widen
from batucada.ops.reduce import reduce
from batucada.ops.view import permute, reshape, unsqueeze


def _infer(a: Type, b: Type) -> Type:
    if len(a.shape) < 2 or len(b.shape) < 2 or a.dtype != b.dtype:
        raise TypeRuleError(f"matmul takes two matrices of one dtype, not {a} and {b}")
    if a.shape[-1] != b.shape[-2]:
        raise TypeRuleError(f"matmul: inner dimensions differ, {a} x {b}")
    return Type(a.dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))


define(Op("matmul", "contract", _infer, np.matmul))


def _contract(a: Type, b: Type, batch: int, k: int) -> Type:
    inner = b.shape[batch:-1]
    fits = a.dtype == b.dtype and len(inner) == k and a.shape[:batch] == b.shape[:batch]
    if not fits or k < 1 or a.shape[len(a.shape) - k :] != inner or len(a.shape) < batch + k + 1:
        raise TypeRuleError(f"contract: {a} and {b} do not fit, {batch=}, {k=}")
    return Type(a.dtype, (*a.shape[: len(a.shape) - k], b.shape[-1]))


def _contract_ref(a: np.ndarray, b: np.ndarray, batch: int, k: int) -> np.ndarray:
    rows = a.shape[batch : a.ndim - k]
    flat = a.reshape(*a.shape[:batch], math.prod(rows), -1)
    product = flat @ b.reshape(*b.shape[:batch], -1, b.shape[-1])
    return product.reshape(*a.shape[: a.ndim - k], b.shape[-1])


define(Op("contract", "contract", _contract, _contract_ref))


define(Op("panels", "index", lambda x, panel: x, lambda x, panel: x))
"""A right operand as it is, but so many columns of it lie one behind another in memory; only
products read it.
"""


def contract(a: Node, b: Node, k: int, batch: int = 0) -> Node:
    """Sums over the last `k` dimensions of `a`, which are those before the last of `b`; the first
    `batch` dimensions of both go together.
    """
    product = cast(make("contract", widen(a), widen(b), batch=batch, k=k), a.type.dtype)
    if 0 in (a.type.size, b.type.size):
        return full(product.type.shape, 0, product.type.dtype)
    return product


def matmul(a: Node, b: Node) -> Node:
    """Operands of mixed float dtypes are computed in the wider one."""
    if a.type.dtype != b.type.dtype:
        wide = "f64" if "f64" in (a.type.dtype, b.type.dtype) else "f32"
        a, b = cast(a, wide), cast(b, wide)
    product = cast(make("matmul", widen(a), widen(b)), a.type.dtype)
    if 0 in (a.type.size, b.type.size):  # a sum over nothing
        return full(product.type.shape, 0, product.type.dtype)
    return product


@translates("aten.mm.default", "aten.bmm.default")
def _mm(a: Node, b: Node) -> Node:
    return matmul(a, b)


@translates("aten.mv.default")
def _mv(a: Node, x: Node) -> Node:
    return reshape(matmul(a, reshape(x, [-1, 1])), [-1])


@translates("aten.dot.default")
def _dot(x: Node, y: Node) -> Node:
    return reduce("sum", make("mul", x, y), None, keepdim=False)


@translates("aten.addmm.default", "aten.baddbmm.default")
def _addmm(bias: Node, a: Node, b: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    return scaled_sum(matmul(a, b), alpha, cast(bias, a.type.dtype), beta)


@translates("aten._trilinear.default")
def _trilinear(
    a: Node, b: Node, c: Node, expand1: Any, expand2: Any, expand3: Any, sumdim: Any, *_: Any
) -> Node:
    """sum over `sumdim` of a * b * c, each with new dimensions at its `expand`"""
    factors = []
    for x, dims in ((a, expand1), (b, expand2), (c, expand3)):
        for dim in sorted(dims):
            x = unsqueeze(x, dim)
        factors.append(x)
    product = make("mul", make("mul", factors[0], factors[1]), factors[2])
    return reduce("sum", product, tuple(sumdim), keepdim=False) if sumdim else product


@translates("aten.linear.default")
def _linear(x: Node, weight: Node, bias: Node | None = None) -> Node:
    rows = reshape(x, [math.prod(x.type.shape[:-1]), x.type.shape[-1]])
    out = reshape(matmul(rows, permute(weight, (1, 0))), [*x.type.shape[:-1], weight.type.shape[0]])
    return out if bias is None else make("add", out, cast(bias, out.type.dtype))
