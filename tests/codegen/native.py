"""Compiles kernels in memory and runs them on numpy arrays, for the tests of code generation."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batucada.codegen.llvm import emit_module
from batucada.codegen.objects import assemble
from batucada.codegen.schedule import Loop, Schedule
from batucada.codegen.target import Target, host_target
from batucada.ir.loops import (
    Apply,
    Expr,
    For,
    Index,
    Kernel,
    Load,
    Param,
    Store,
    dtype_of,
    lanes_of,
)
from batucada.ir.loops_scalar import NUMPY
from batucada.ir.loops_verify import lane_type, result_type, verify_kernel
from batucada.ir.types import DType
from batucada.runtime.native import NativeModule

Array = np.ndarray[Any, np.dtype[Any]]


def build(
    kernels: Sequence[Kernel],
    schedules: Sequence[Schedule | Loop] = (),
    checked: bool = False,
    target: Target | None = None,
) -> NativeModule:
    target = target or host_target()
    for kernel in kernels:
        verify_kernel(kernel)
    return NativeModule.load(
        assemble(emit_module(kernels, target, schedules, checked).text, target)
    )


def run(
    module: NativeModule,
    kernel: Kernel,
    buffers: Mapping[str, Array],
    span: tuple[int, int] = (0, 0),
) -> int:
    """The code that the compiled kernel returns; it changes the arrays."""
    pointers = [ctypes.c_void_p] * len(kernel.params)
    function = module.function(kernel.name, *pointers, ctypes.c_int64, ctypes.c_int64)
    addresses = [buffers[param.name].ctypes.data for param in kernel.params]
    return function(*addresses, *span)


def apply(op: str, *args: Expr, dtype: DType | None = None, lanes: int = 1, arg: int = 0) -> Apply:
    """An operation with its result's type filled in."""
    types: list[tuple[DType, int]] = [(dtype_of(value), lanes_of(value)) for value in args]
    draft = Apply(op, args, dtype or "i64", types[0][1] if op == "cast" else lanes, arg)
    found = lane_type(draft, types) or result_type(op, types)
    return Apply(op, args, found[0], found[1], arg)


def map_kernel(op: str, dtype: DType, arity: int, size: int, lanes: int, out: DType) -> Kernel:
    """out[i] = op(x0[i], x1[i], ...) over `size` elements, in steps of `lanes`; a cast when arity
    is 0.
    """
    names = [f"x{n}" for n in range(max(arity, 1))]
    dtypes: list[DType] = [dtype] * len(names)
    if op == "where":
        dtypes[0] = "bool"
    here = Index.of("i")
    loads = [Load(name, here, kind, lanes) for name, kind in zip(names, dtypes, strict=True)]
    value = apply(op, *loads, dtype=out)
    body = (Store("out", here, value, lanes),)
    params = tuple(Param(name, kind, size) for name, kind in zip(names, dtypes, strict=True))
    loop = For("i", 0, size, lanes, body)
    return Kernel(
        f"map_{op}_{dtype}_{out}_{lanes}", (*params, Param("out", out, size, True)), (loop,)
    )


def empty(dtype: DType, size: int) -> Array:
    return np.zeros(size, np.uint16 if dtype == "bf16" else NUMPY[dtype])
