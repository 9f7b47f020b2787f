"""Elementwise operations as kernels spell them: half precision is computed in f32."""

from __future__ import annotations

from batucada.ir.loops import Apply, Expr, dtype_of, lanes_of
from batucada.ir.types import DType

_HALVES: frozenset[DType] = frozenset({"bf16", "f16"})


def apply_op(op: str, args: tuple[Expr, ...], dtype: DType) -> Apply:
    """An elementwise operation; half precision is computed in f32 and rounded once."""
    lanes = max(lanes_of(arg) for arg in args)
    if op == "cast" or not any(dtype_of(arg) in _HALVES for arg in args):
        return Apply(op, args, dtype, lanes)
    wide = tuple(_cast(arg, "f32") if dtype_of(arg) in _HALVES else arg for arg in args)
    result = Apply(op, wide, "f32" if dtype in _HALVES else dtype, lanes)
    return _cast(result, dtype)


def _cast(value: Expr, dtype: DType) -> Apply:
    return (
        value
        if isinstance(value, Apply) and value.dtype == dtype
        else Apply("cast", (value,), dtype, lanes_of(value))
    )
