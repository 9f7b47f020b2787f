"""The import rules of the source tree, kept by walking every import statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
CORE = SRC / "batucada"
SHARED = {"ir", "ops", "config", "errors"}
_MAPPED = ("program", "Program", "Stage", "Buffer", "Root", "Sweep")
RECORDS_OF: dict[str, set[str]] = {
    "ir": set(),
    "ops": set(),
    "capture": set(),
    "passes": set(),
    "mapping": set(),
    "codegen": {f"batucada.mapping.{name}" for name in _MAPPED},
    "pef": set(),
    "checkpoint": {"batucada.program", "batucada.runtime.group"},
    "runtime": {"batucada.pef", "batucada.codegen.target", "batucada.codegen.objects"},
}
"""What a folder may import besides SHARED and itself: the records of the step before it, and for
the runtime what it needs to rebuild a PEF for another processor."""

TORCH_IN = ("batucada/capture/", "batucada/runtime/", "batucada/checkpoint/", "sambaflow/")
PUBLIC_TORCH = {"batucada/__init__.py", "batucada/pipeline.py", "batucada/program.py"}
"""The public functions take and give tensors, so their files name `torch`, too."""

MODULES = sorted(SRC.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name; `from a import b` gives `a.b`."""
    package = ".".join(path.relative_to(SRC).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            yield from (f"{base}{node.module or ''}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def may_import(folder: str, imported: str) -> bool:
    parts = imported.split(".")
    if parts[0] != "batucada" or len(parts) == 1:
        return True
    if parts[1] == folder or parts[1] in SHARED:
        return True
    return any(f"{imported}.".startswith(f"{record}.") for record in RECORDS_OF[folder])


@pytest.mark.parametrize("path", [m for m in MODULES if m.parents[1] == CORE], ids=name_of)
def test_a_step_imports_no_other_step(path: Path) -> None:
    folder = path.parent.name
    wrong = [name for name in imports_of(path) if not may_import(folder, name)]
    assert not wrong, f"{name_of(path)} may not import {wrong}"


def may_use_torch(path: Path) -> bool:
    return name_of(path).startswith(TORCH_IN) or name_of(path) in PUBLIC_TORCH


@pytest.mark.parametrize("path", [m for m in MODULES if not may_use_torch(m)], ids=name_of)
def test_torch_stays_where_it_belongs(path: Path) -> None:
    assert not [i for i in imports_of(path) if i.split(".")[0] in ("torch", "torchvision")]


@pytest.mark.parametrize("path", [m for m in MODULES if "sambaflow" in m.parts], ids=name_of)
def test_the_face_imports_public_names_only(path: Path) -> None:
    parts = (name.split(".") for name in imports_of(path))
    wrong = [".".join(p) for p in parts if p[0] == "batucada" and (len(p) > 2 and p[1] != "errors")]
    assert not wrong, f"{name_of(path)} may import from `batucada` itself, not {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_star_imports_and_no_vague_names(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.endswith(".*")]
    if "batucada" in path.relative_to(SRC).parts:
        assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_the_rule_itself() -> None:
    assert may_import("passes", "batucada.ir.graph.Graph")
    assert may_import("runtime", "batucada.pef.read_pef")
    assert not may_import("passes", "batucada.codegen.llvm")
    assert not may_import("pef", "batucada.runtime.native")


def test_every_folder_has_a_rule() -> None:
    assert {path.parent.name for path in CORE.glob("*/*.py")} <= set(RECORDS_OF)
