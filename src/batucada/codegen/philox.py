"""Random bits: Philox 2x32-10 in LLVM IR, on any number of lanes.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC'11).
"""

from __future__ import annotations

from batucada.codegen.builder import Builder, Value
from batucada.ir.loops import PHILOX_MULTIPLIER, PHILOX_ROUNDS, PHILOX_WEYL

_LOW = 2**32 - 1


def word(b: Builder, low: Value, high: Value, key: Value) -> Value:
    """The first word of the block that the counter (low, high) has under `key`; all i32.

    Each word is the lower half of a 64-bit lane, whose upper half may hold anything: so a round is
    a product of lower halves, which processors have, a shift and two exclusive ors.
    """
    low, high, key = (b.convert("zext", value, "i64") for value in (low, high, key))
    for turn in range(PHILOX_ROUNDS):
        wide = b.op("mul", b.op("and", low, _LOW), PHILOX_MULTIPLIER)
        turn_key = b.op("add", key, turn * PHILOX_WEYL % 2**32) if turn else key
        low = b.op("xor", b.op("xor", b.op("lshr", wide, 32), turn_key), high)
        high = wide
    return b.convert("trunc", low, "i32")
