"""Targets: which one this machine has, which runs where, and that code can be made for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from batucada.codegen import target as targets
from batucada.codegen.llvm import emit_module
from batucada.codegen.objects import assemble
from batucada.codegen.schedule import Call, Schedule
from batucada.codegen.target import TARGETS, host_target, runs_on, target_of
from batucada.errors import OptionError
from tests.codegen.native import map_kernel


@pytest.mark.parametrize("level", TARGETS)
def test_every_target_can_be_compiled_for(level: str) -> None:
    kernel = map_kernel("tanh", "f32", 1, 64, 8, "f32")
    schedule = Schedule("go", (Call(kernel.name, ((2, 0), (3, 0)), parallel=True),))
    code = assemble(emit_module([kernel], target_of(level), [schedule]).text, target_of(level))
    machine = int.from_bytes(code[18:20], "little")
    assert machine == (183 if level == "aarch64" else 62)


@pytest.mark.parametrize("level", targets.X86_LEVELS)
def test_the_level_follows_from_the_flags(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = targets.X86_LEVELS[level] | {"amx_tile", "fpu", "avx512f"}
    monkeypatch.setattr(targets.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(targets, "_cpu_flags", lambda: flags)
    assert host_target().level == level


def test_machines_without_a_target_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.platform, "machine", lambda: "riscv64")
    with pytest.raises(OptionError, match="riscv64"):
        host_target()
    monkeypatch.setattr(targets.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(targets, "_cpu_flags", lambda: frozenset({"ssse3"}))
    with pytest.raises(OptionError, match="lacks cx16"):
        host_target()
    with pytest.raises(OptionError, match="x86-64-v9"):
        target_of("x86-64-v9")


def test_flags_come_from_the_first_processor(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor : 0\nflags\t\t: fpu avx2\nprocessor : 1\nflags\t\t: fpu\n")
    assert targets._cpu_flags(listing) == {"fpu", "avx2"}
    assert targets._cpu_flags(tmp_path / "nothing") == frozenset()


def test_code_runs_on_its_level_and_above() -> None:
    v2, v3, arm = (target_of(level) for level in ("x86-64-v2", "x86-64-v3", "aarch64"))
    assert runs_on(v2, v3)
    assert runs_on(v3, v3)
    assert not runs_on(v3, v2)
    assert not runs_on(v3, arm)
    assert not runs_on(arm, v3)
