"""PyTorch's `prims`, in which some of its decompositions end: they take dimensions and dtypes as
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops import arithmetic as arithmetic  # fills ATEN
from batucada.ops.base import ATEN, translates
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce, variance
from batucada.ops.view import expand, reshape

for _prim, _aten in {
    "abs": "abs.default", "neg": "neg.default", "div": "div.Tensor", "where": "where.self",
    "digamma": "digamma.default", "shift_left": "bitwise_left_shift.Tensor",
    "shift_right_arithmetic": "bitwise_right_shift.Tensor",
}.items():  # fmt: skip
    ATEN[f"prims.{_prim}.default"] = ATEN[f"aten.{_aten}"]


def _reduced(op: str, x: Node, dims: Sequence[int] | None, dtype: DType | None) -> Node:
    """No dimensions at all leave the tensor as it is; None takes all of them."""
    x = x if dtype is None else cast(x, dtype)
    return x if dims is not None and not dims else reduce(op, x, dims, keepdim=False)


@translates("prims.sum.default")
def _sum(x: Node, dims: Any, *, output_dtype: DType | None = None) -> Node:
    return _reduced("sum", x, dims, output_dtype)


@translates("prims.prod.default")
def _prod(x: Node, dims: Any, *, output_dtype: DType | None = None) -> Node:
    return _reduced("prod", x, dims, output_dtype)


@translates("prims.var.default")
def _var(
    x: Node, dims: Any, correction: float | None = 1, *, output_dtype: DType | None = None
) -> Node:
    return variance(x if output_dtype is None else cast(x, output_dtype), dims, correction)


@translates("prims.convert_element_type.default")
def _convert(x: Node, dtype: DType) -> Node:
    return cast(x, dtype)


@translates("prims.broadcast_in_dim.default")
def _broadcast_in_dim(x: Node, shape: Sequence[int], dims: Sequence[int]) -> Node:
    """Dimension i of x becomes dimension dims[i] of the result."""
    aligned = [1] * len(shape)
    for extent, dim in zip(x.type.shape, dims, strict=True):
        aligned[dim] = extent
    return expand(reshape(x, aligned), shape)
