"""Measure the rows of the model table and write docs/models.md.

    python -m tools.model_table                        # what is not measured yet, and the page
    python -m tools.model_table --parts training       # a part of every row; the others can wait
    python -m tools.model_table --rows LeNet --anew    # a row again
    python -m tools.model_table --page                 # the page alone

Every part of a row is measured in a process of its own, pinned to one core.  What was measured is
kept in docs/models.jsonl, a line a row, each part with the commit of the compiler it was measured
at: a newer compiler changes no line until it is asked to (`--anew`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.models.row import Row
from tests.models.table import ROWS
from tools.model_page import page

ROOT = Path(__file__).parents[1]
LINES = ROOT / "docs" / "models.jsonl"
PAGE = ROOT / "docs" / "models.md"
PARTS = ("training", "checked", "memory", "eager-memory", "speed")
PART_SECONDS = 1800
ONE_CORE = {
    "SN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "BATUCADA_CACHE": "off",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1",
}  # fmt: skip
Record = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_one(arguments.one, _rows(arguments.rows)[0], Path(arguments.pef))))
        return
    for row in [] if arguments.page else _rows(arguments.rows):
        missing = [part for part in arguments.parts if arguments.anew or part not in _known(row)]
        _measure(row, missing)
    known = {row.name: _known(row) for row in ROWS}
    PAGE.write_text(page([(row, known[row.name]) for row in ROWS]))


def _one(part: str, row: Row, pef: Path) -> Record:
    """The figures of a part, measured in this process; `training` leaves its PEF at `pef`, `memory`
    needs it."""
    import torch

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    torch.set_num_threads(1)
    if part in ("memory", "eager-memory"):
        from tools.model_memory import peak_here, peak_in_eager

        return {"peak_bytes": peak_here(row, pef) if part == "memory" else peak_in_eager(row)}
    from tools.model_measurements import measured

    return measured(part, row, pef)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", default="", help="names with semicolons between; default: all")
    parser.add_argument(
        "--parts", type=_parts, default=PARTS, help=f"with commas between: {', '.join(PARTS)}"
    )
    parser.add_argument("--anew", action="store_true", help="measure again what is measured")
    parser.add_argument("--page", action="store_true", help="write the page from what is measured")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--pef", help=argparse.SUPPRESS)
    return parser.parse_args()


def _parts(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := set(found) - set(PARTS):
        raise argparse.ArgumentTypeError(f"there is no part {sorted(unknown)[0]!r}")
    return found


def _rows(names: str) -> Sequence[Row]:
    if not names:
        return ROWS
    known = {row.name: row for row in ROWS}
    for name in names.split(";"):
        if name not in known:
            raise SystemExit(f"models: there is no {name!r}; known: {'; '.join(known)}")
    return [known[name] for name in names.split(";")]


def _lines() -> dict[str, Record]:
    lines = LINES.read_text().splitlines() if LINES.exists() else []
    return {record["row"]: record["parts"] for record in map(json.loads, lines)}


def _known(row: Row) -> Record:
    """What is measured of a row, by part."""
    return _lines().get(row.name, {})


def _keep(row: Row, parts: Record) -> None:
    """Reads the file again: another process may measure other rows."""
    lines = _lines()
    lines[row.name] = lines.get(row.name, {}) | parts
    kept = [{"row": r.name, "parts": lines[r.name]} for r in ROWS if r.name in lines]
    LINES.write_text("".join(json.dumps(record) + "\n" for record in kept))


def _measure(row: Row, parts: Sequence[str]) -> None:
    made_by = {"commit": _commit(), "machine": _machine()}
    with tempfile.TemporaryDirectory() as folder:
        pef = Path(folder) / "model.pef"
        for part in parts:
            if part == "memory" and not pef.exists():  # it is not to compile in its own process
                _in_a_process(row, "training", pef)
            figures = {**made_by, **_in_a_process(row, part, pef)}
            _keep(row, {part: figures})
            print(json.dumps({"row": row.name, "part": part, **figures}), flush=True)


def _in_a_process(row: Row, part: str, pef: Path) -> Record:
    """The figures; where a part fails, the last line of its message as `failed`."""
    command = [
        sys.executable, "-m", "tools.model_table", "--one", part, "--rows", row.name,
        "--pef", str(pef),
    ]  # fmt: skip
    environment = {**os.environ, **ONE_CORE}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a process that trains compiles no source
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PART_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"it took longer than {PART_SECONDS} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def _commit() -> str:
    """What the compiler is now; with a `+` where its source is not as committed."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "-s", "src") else "")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    return f"{model}, {os.cpu_count()} processors, PyTorch {version('torch')}"


if __name__ == "__main__":
    main()
