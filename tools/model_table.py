"""Measure every row of the model table and write docs/models.md.

    python -m tools.model_table                     # rows not measured yet, and the page
    python -m tools.model_table --rows LeNet,U-Net  # these, anew
    python -m tools.model_table --page              # the page alone

Every part of a row is measured in a process of its own, pinned to one core.  What was measured is
kept, one JSON line a row, in out/models.jsonl; a line that another compiler made counts as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.models.row import Row
from tests.models.table import ROWS
from tools.model_page import page

from batucada.cache import compiler_fingerprint

ROOT = Path(__file__).parents[1]
LINES = ROOT / "out" / "models.jsonl"
PAGE = ROOT / "docs" / "models.md"
PARTS = ("speed", "error", "memory", "eager-memory")
ONE_CORE = {
    "SN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "BATUCADA_CACHE": "off",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}  # fmt: skip


def main() -> None:
    arguments = _arguments()
    if arguments.part:
        from tools.model_measurements import measured  # a row's libraries are imported there

        print(json.dumps(measured(arguments.part, _row(arguments.rows), Path(arguments.pef))))
        return
    known = _known()
    asked = arguments.rows.split(",") if arguments.rows else []
    for row in [_row(name) for name in asked] or ROWS:
        if not arguments.page and (asked or row.name not in known):
            known[row.name] = _measured(row)
            _keep(known)
            print(json.dumps(known[row.name]), flush=True)
    PAGE.write_text(page([known[row.name] for row in ROWS if row.name in known], len(ROWS)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", default="", help="names with commas between, measured anew")
    parser.add_argument("--page", action="store_true", help="write the page from what is measured")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--pef", help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(name: str) -> Row:
    found = next((row for row in ROWS if row.name == name), None)
    if found is None:
        raise SystemExit(f"models: there is no {name!r}; known: {', '.join(r.name for r in ROWS)}")
    return found


def _known() -> dict[str, dict[str, Any]]:
    lines = LINES.read_text().splitlines() if LINES.exists() else []
    records = [json.loads(line) for line in lines]
    return {r["row"]: r for r in records if r["compiler"] == compiler_fingerprint()}


def _keep(known: dict[str, dict[str, Any]]) -> None:
    LINES.parent.mkdir(exist_ok=True)
    LINES.write_text("".join(json.dumps(record) + "\n" for record in known.values()))


def _measured(row: Row) -> dict[str, Any]:
    """All figures of a row; where a part fails, `failed` holds the last line of its message."""
    record: dict[str, Any] = {
        "row": row.name, "family": row.family, "double": row.double,
        "compiler": compiler_fingerprint(), "failed": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            command = [
                sys.executable, "-m", "tools.model_table",
                "--part", part, "--rows", row.name, "--pef", f"{folder}/model.pef",
            ]  # fmt: skip
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, **ONE_CORE}, capture_output=True, text=True
            )
            if done.returncode:
                record["failed"][part] = (done.stderr.strip().splitlines() or ["killed"])[-1]
            else:
                record |= json.loads(done.stdout.splitlines()[-1])
    return record


if __name__ == "__main__":
    main()
