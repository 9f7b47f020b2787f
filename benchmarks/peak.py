"""The processor's own limit: fused multiply-adds in f32 on registers.

It is measured with as many threads as are used: two of a machine's cores may be one that takes
turns, and then reach no more than one.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm

_REGISTERS, _LANES, _TRIPS = 16, 8, 4_000_000


def peak_gflops(threads: int = 1, rounds: int = 20) -> float:
    """Best of `rounds` runs of a loop of independent fused multiply-adds, in GFLOP/s of all."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_loop()), machine)
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(
        engine.get_function_address("multiply_add")
    )
    flops = 2 * _REGISTERS * _LANES * _TRIPS * threads
    with ThreadPoolExecutor(threads) as pool:
        return max(flops / _seconds(function, pool, threads) / 1e9 for _ in range(rounds))


def _seconds(function: Callable[[int], float], pool: ThreadPoolExecutor, threads: int) -> float:
    start = time.perf_counter()
    list(pool.map(function, [_TRIPS] * threads))
    return time.perf_counter() - start


def _loop() -> str:
    kind = f"<{_LANES} x float>"
    numbers = range(_REGISTERS)
    head = "\n".join(
        f"%x{n} = phi {kind} [ zeroinitializer, %0 ], [ %y{n}, %more ]" for n in numbers
    )
    body = "\n".join(
        f"%y{n} = call {kind} @llvm.fma.v{_LANES}f32({kind} %x{n}, {kind} %x{n}, {kind} %x{n})"
        for n in numbers
    )
    total, lines = "%y0", []
    for n in numbers[1:]:
        lines.append(f"%t{n} = fadd {kind} {total}, %y{n}")
        total = f"%t{n}"
    return "\n".join([
        f"declare {kind} @llvm.fma.v{_LANES}f32({kind}, {kind}, {kind})",
        "define float @multiply_add(i64 %n) {", "br label %more", "more:",
        "%i = phi i64 [ 0, %0 ], [ %j, %more ]", head, body,
        "%j = add i64 %i, 1", "%go = icmp slt i64 %j, %n", "br i1 %go, label %more, label %out",
        "out:", *lines, f"%r = extractelement {kind} {total}, i32 0", "ret float %r", "}",
    ])  # fmt: skip
