"""The model table as a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = """\
# Models

Each row is a model of `tests/models`, with its loss and optimizer, trained ten steps beside eager
PyTorch with the same weights and batches; how far apart the two may be is tested. `make models`
runs the tests, measures and writes this page.

- *native*: the share of stages, and of flops, that are compiled; PyTorch runs the rest (*host*).
- *loss* and *state*: the largest difference from eager in ten steps, relative for the loss; for
  parameters and buffers relative to the largest element of the tensor, or to 1 if that is less.
  Rows with ¹ are compared in float64: in float32, eager's own rounding goes beyond the tolerance.
- *compile*: seconds here, and of `torch.compile` with nothing cached, for the same training step.
- *step*: milliseconds here, and how many times as long eager and `torch.compile` of the model
  take; medians of interleaved turns, one thread.
- *peak*: MB resident of a process that trains, here and in eager.
- *arena*: the planned memory over the most that lives at once.

"""
COLUMNS = (
    "model", "family", "native stages", "flops", "host", "loss", "state", "compile",
    "torch.compile", "step ms", "eager", "torch.compile", "peak MB", "eager", "arena",
)  # fmt: skip
Record = dict[str, Any]


def page(records: Sequence[Record], rows: int) -> str:
    """The page of the rows that are measured, out of `rows`."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(record))} |" for record in records]
    failures = [
        f"- {r['row']}, {part}: {why}" for r in records for part, why in r["failed"].items()
    ]
    failed = ["", "Not measured:", "", *failures] if failures else []
    return HEAD + _summary(records, rows) + "\n" + "\n".join([*lines, *failed]) + "\n"


def _summary(records: Sequence[Record], rows: int) -> str:
    flops = sum(r.get("flops", 0) for r in records)
    native = sum(r.get("native_flops", 0) for r in records)
    share = f", {100 * native / flops:.1f} % of all flops native" if flops else ""
    return f"{len(records)} of {rows} rows{share}. Measured on {_machine()}.\n"


def _machine() -> str:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    return f"{model}, {os.cpu_count()} processors, PyTorch {torch.__version__}"


def _cells(r: Record) -> list[str]:
    step = r.get("step_s", {})
    here = step.get("here")
    return [
        r["row"] + ("¹" if r["double"] else ""),
        r["family"],
        f"{r['native_stages']}/{r['stages']}" if "stages" in r else "–",
        f"{100 * r['native_flops'] / max(r['flops'], 1):.1f} %" if "flops" in r else "–",
        ", ".join(f"{count} {name}" for name, count in r.get("host", {}).items()),
        _number(r.get("loss_error"), ".0e"),
        _number(r.get("state_error"), ".0e"),
        _number(r.get("compile_s"), ".1f"),
        r.get("torch_compile_failed") or _number(r.get("torch_compile_s"), ".1f"),
        _number(here and 1e3 * here, ".2f"),
        _number(here and step["eager"] / here, ".2f"),
        _number(step["torch_compile"] / here if "torch_compile" in step else None, ".2f"),
        _number(r.get("peak_bytes") and r["peak_bytes"] / 1e6, ".0f"),
        _number(r.get("eager_peak_bytes") and r["eager_peak_bytes"] / 1e6, ".0f"),
        _number(r.get("live_bytes") and r["arena_bytes"] / r["live_bytes"], ".2f"),
    ]


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)
