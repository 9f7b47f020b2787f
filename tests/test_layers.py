"""The import rules of the source tree, kept by walking every import statement."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

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


IMPORTS = {path: list(imports_of(path)) for path in MODULES}


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def may_import(folder: str, imported: str) -> bool:
    parts = imported.split(".")
    if parts[0] != "batucada" or len(parts) == 1:
        return True
    if parts[1] == folder or parts[1] in SHARED:
        return True
    return any(f"{imported}.".startswith(f"{record}.") for record in RECORDS_OF[folder])


def wrong_imports(
    is_meant: Callable[[Path], bool], is_allowed: Callable[[Path, str], bool]
) -> dict[str, list[str]]:
    """What the meant files import and may not, by file."""
    found = {
        name_of(path): [name for name in IMPORTS[path] if not is_allowed(path, name)]
        for path in MODULES
        if is_meant(path)
    }
    assert found
    return {name: wrong for name, wrong in found.items() if wrong}


def test_a_step_imports_no_other_step() -> None:
    assert not wrong_imports(
        lambda path: path.parents[1] == CORE, lambda path, name: may_import(path.parent.name, name)
    )


def may_use_torch(path: Path) -> bool:
    return name_of(path).startswith(TORCH_IN) or name_of(path) in PUBLIC_TORCH


def test_torch_stays_where_it_belongs() -> None:
    assert not wrong_imports(
        lambda path: not may_use_torch(path),
        lambda _, name: name.split(".")[0] not in ("torch", "torchvision"),
    )


def is_public(name: str) -> bool:
    parts = name.split(".")
    return parts[0] != "batucada" or len(parts) <= 2 or parts[1] == "errors"


def test_the_face_imports_public_names_only() -> None:
    assert not wrong_imports(
        lambda path: "sambaflow" in path.parts, lambda _, name: is_public(name)
    )


def test_no_star_imports_and_no_vague_names() -> None:
    assert not wrong_imports(lambda _: True, lambda _, name: not name.endswith(".*"))
    vague = {"utils", "helpers", "common", "misc"}
    assert not [path for path in CORE.rglob("*.py") if path.stem in vague]


def test_the_rule_itself() -> None:
    assert may_import("passes", "batucada.ir.graph.Graph")
    assert may_import("runtime", "batucada.pef.read_pef")
    assert not may_import("passes", "batucada.codegen.llvm")
    assert not may_import("pef", "batucada.runtime.native")
    assert is_public("batucada.load")
    assert is_public("batucada.errors.InputError")
    assert not is_public("batucada.pipeline.compile")
    wrong = wrong_imports(lambda path: path == CORE / "pipeline.py", lambda *_: False)
    assert "batucada.artifact.pack" in wrong["batucada/pipeline.py"]


def test_every_folder_has_a_rule() -> None:
    assert {path.parent.name for path in CORE.glob("*/*.py")} <= set(RECORDS_OF)
