"""What a processor can do, as far as code generation must know.  Reads the machine, never LLVM."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from batucada.errors import OptionError

_V2 = frozenset("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())
_V3 = _V2 | frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split())
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())
X86_LEVELS: dict[str, frozenset[str]] = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
"""Flags of /proc/cpuinfo that each level of the x86-64 psABI needs (its table 3.1), in rising
order.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A processor family.  `vector_bytes` and `vector_registers` are of its widest registers."""

    triple: str
    level: str
    vector_bytes: int
    vector_registers: int

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")

    @property
    def has_fma(self) -> bool:
        """Whether fma is one instruction; where it is not, `fma` is a product and a sum."""
        return self.level != "x86-64-v2"

    @property
    def has_half_conversion(self) -> bool:
        """Whether f16 <-> f32 are instructions."""
        return self.level != "x86-64-v2"


TARGETS: dict[str, Target] = {
    "x86-64-v2": Target("x86_64-unknown-linux-gnu", "x86-64-v2", 16, 16),
    "x86-64-v3": Target("x86_64-unknown-linux-gnu", "x86-64-v3", 32, 16),
    "x86-64-v4": Target("x86_64-unknown-linux-gnu", "x86-64-v4", 64, 32),
    "aarch64": Target("aarch64-unknown-linux-gnu", "aarch64", 16, 32),
}


def target_of(level: str) -> Target:
    """The target called `level`; OptionError when there is none."""
    if level not in TARGETS:
        raise OptionError(f"unknown target {level!r}; known: {', '.join(TARGETS)}")
    return TARGETS[level]


def host_target() -> Target:
    """The best target that this machine runs; OptionError on a machine that has none."""
    machine = platform.machine()
    if machine in ("aarch64", "arm64"):
        return TARGETS["aarch64"]
    if machine not in ("x86_64", "AMD64"):
        raise OptionError(
            f"no code generation for this processor ({machine}); have x86_64, aarch64"
        )
    flags = _cpu_flags()
    levels = [level for level, needed in X86_LEVELS.items() if needed <= flags]
    if not levels:
        lacking = ", ".join(sorted(X86_LEVELS["x86-64-v2"] - flags))
        raise OptionError(f"this processor is older than x86-64-v2: it lacks {lacking}")
    return TARGETS[levels[-1]]


def runs_on(target: Target, host: Target) -> bool:
    """Whether code made for `target` runs on `host`: the same family, and no higher level."""
    if target.triple != host.triple:
        return False
    if not target.is_x86:
        return target.level == host.level
    order = list(X86_LEVELS)
    return order.index(target.level) <= order.index(host.level)


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of the first processor listed; none when the file says nothing."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())
