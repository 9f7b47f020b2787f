"""What accesses of a kernel have in common is computed once, outside the loops that do not change
it."""

from __future__ import annotations

from batucada.codegen.llvm import emit_module
from batucada.codegen.target import host_target
from batucada.ir.loops_text import parse_kernel
from batucada.ir.loops_verify import verify_kernel

NEIGHBOURS = """
def k(a: 'f32[70]', b: 'f32[70] inout'):
    for i in range(0, 5, 1):
        for j in range(0, 3, 1):
            x = a[10*i + 2*j, 1]
            y = a[10*i + 2*j + 1, 1]
            z = a[10*i + 2*j + 20, 1]
            b[10*i + j, 1] = fma(x, y, z)
"""


def test_neighbouring_accesses_share_their_address() -> None:
    kernel = parse_kernel(NEIGHBOURS)
    verify_kernel(kernel)
    lines = emit_module([kernel], host_target()).text.splitlines()
    outer, inner = (n for n, line in enumerate(lines) if " phi " in line)
    products = [n for n, line in enumerate(lines) if " mul " in line]
    assert len(products) == 2  # 10 * i and 2 * j
    assert outer < products[0] < inner < products[1]
    assert sum("getelementptr" in line for line in lines) == 6  # a and b at i, at j; two neighbours
    assert not any("alloca" in line for line in lines)


TWO_ZEROS = """
def k(a: 'i64[8]', b: 'bf16[8] inout', c: 'i64[8] inout'):
    b[0, 8] = splat(bf16(0.0), 8)
    c[0, 8] = maximum(a[0, 8], splat(i64(0), 8))
"""


def test_constants_that_are_written_alike_stay_apart() -> None:
    """0 is the same text in the bits of a bf16 and in an i64."""
    kernel = parse_kernel(TWO_ZEROS)
    verify_kernel(kernel)
    text = emit_module([kernel], host_target()).text
    (store,) = (line for line in text.splitlines() if "store <8 x i16>" in line)
    (compared,) = (line for line in text.splitlines() if "icmp sgt <8 x i64>" in line)
    assert store.count("i16 0") == compared.count("i64 0") == 8
