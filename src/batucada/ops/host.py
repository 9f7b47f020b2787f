"""Operators without a kernel: PyTorch runs them on views of the program's memory.

A call is written down as data: `target` is the operator's name with its overload, `form` its
arguments as JSON, in which `{"tensor": i}` stands for the i-th argument of the node,
`{"complex": i}` for that seen as complex numbers, whose parts are its last dimension,
`{"generator": i}` for a generator of random numbers with that seed, i32[], and `{"dtype": name}`
for a dtype of PyTorch.  `changes` are the tensors that the operator changes: what becomes of them
follows its results.  An operator with several results is several nodes: see `call_key`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from batucada.ir.graph import Attr, Node
from batucada.ir.types import DType, Shape, Type
from batucada.ops.base import Op, define, make

Evaluator = Callable[..., np.ndarray]

_evaluators: list[Evaluator] = []


def set_evaluator(evaluate: Evaluator) -> None:
    """`evaluate(arrays, target, form, result, dtype)` calls PyTorch, for the oracle."""
    _evaluators[:] = [evaluate]


def _infer(*_: Type, dtype: DType, shape: Shape, **__: Attr) -> Type:
    return Type(dtype, tuple(shape))


def _ref(
    *arrays: np.ndarray, target: str, form: str, result: int, dtype: DType, **_: Any
) -> np.ndarray:
    if not _evaluators:
        raise RuntimeError(f"{target} runs in PyTorch, which is not there")
    return _evaluators[0](arrays, target, form, result, dtype)


def _cost(*_: Type, flops: int, **__: Attr) -> int:
    return flops


define(Op("host", "host", _infer, _ref, cost=_cost))


def host_call(
    args: tuple[Node, ...], target: str, form: str, result: int, out: Type, flops: int
) -> Node:
    return make(
        "host", *args,
        target=target, form=form, result=result, dtype=out.dtype, shape=out.shape, flops=flops,
    )  # fmt: skip
