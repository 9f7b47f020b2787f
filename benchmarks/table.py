"""The tables of a page from the lines of `bench.py --cases networks`.

    python benchmarks/table.py lines.jsonl docs/speed.md

Each table stands in the page between `<!-- table NAME -->` and `<!-- end -->`; NAME is
`training-T` or `inference-T` for T threads.  A table without a line stays as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import OURS, measured

Line = dict[str, Any]
_HEAD = "Batucada | of the peak | eager | best of PyTorch | best / Batucada |"
_TABLE = re.compile(r"<!-- table (training|inference)-(\d+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    lines, page = measured(Path(sys.argv[1])), Path(sys.argv[2])
    page.write_text(filled(page.read_text(), lines.values()))


def filled(text: str, lines: Iterable[Line]) -> str:
    """The page with its tables made anew."""
    every = [line for line in lines if "us" in line]

    def table(found: re.Match[str]) -> str:
        kind, threads = found[1], int(found[2])
        inference = kind == "inference"
        rows = [
            line
            for line in every
            if line["threads"] == threads and ("-infer-" in line["case"]) is inference
        ]
        if not rows:
            return found[0]
        return "\n".join([found[0].split("\n", 1)[0], *_table(kind, rows), "<!-- end -->"])

    return _TABLE.sub(table, text)


def _table(kind: str, lines: list[Line]) -> list[str]:
    head = f"| {kind}, milliseconds | {_HEAD}"
    return [head, "|---" * (head.count("|") - 1) + "|", *map(_row, lines)]


def _row(line: Line) -> str:
    name, _, batch = line["case"].partition("-infer-")
    us: dict[str, float] = line["us"]
    others = {peer: value for peer, value in us.items() if peer not in OURS}
    late = [peer for peer, why in line["skipped"].items() if why.startswith("not ready")]
    best = min(others, key=others.__getitem__)
    cells = [
        f"{name}, batch {batch}" if batch else name,
        _milliseconds(us["loop"]),
        f"{line['of_peak']:.2f}",
        _milliseconds(us["eager"]),
        f"{_milliseconds(others[best])} {best}" + (f" (late: {', '.join(late)})" if late else ""),
        f"{others[best] / us['loop']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _milliseconds(us: float) -> str:
    return f"{us / 1000:.3g}"


if __name__ == "__main__":
    main()
