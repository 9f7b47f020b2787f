"""The model table as a page: a summary, then a table for each family."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from tests.models.row import Row

HEAD = """\
# Models

Each row is a model of `tests/models` with its loss and its optimizer, trained ten steps beside
eager PyTorch from the same weights on the same batches. `make models` runs every row as a test,
measures what is not measured yet and writes this page from
[models.jsonl](models.jsonl), which has all figures and the commit each was measured at.
`python -m tools.model_table --anew` measures again, `--rows` and `--parts` choose.

"""
LEGEND = """
## How to read the tables

- *native*: the share of the stages of a training step, and of its floating-point operations, that
  are compiled; PyTorch runs the rest, which *host* names. A host operation counts the operations of
  what it computes.
- *loss*, *state*: the largest difference from eager in ten steps, relative for the loss; for
  parameters and buffers relative to the largest element of the tensor, or to 1 if that is less.
  Tested: both at most 1e-4.
- *step*: milliseconds of a training step here, one thread; then how many times as long eager and
  `torch.compile` of the model take: medians of interleaved turns. Above 1, Batucada is faster.
- *compile*: processor seconds to compile the training step here, and in `torch.compile`, nothing
  cached.
- *MB*: the most resident memory of a process that trains ten steps, here (it loads a PEF, attaches
  the model, and takes the weights back) and in eager, whose process does not import Batucada. Both
  hold PyTorch itself, 500 to 730 MB of it.
- *arena*: the planned memory over the most that lives at once.
"""
COLUMNS = (
    "model", "native stages", "flops", "host", "loss", "state", "step ms", "eager ×",
    "torch.compile ×", "compile s", "torch.compile s", "MB", "eager MB", "arena",
)  # fmt: skip
Record = dict[str, Any]
"""What is measured of a row, by part."""
Measured = Sequence[tuple[Row, Record]]


def page(rows: Measured) -> str:
    """The page; a row's record is empty where nothing is measured."""
    parts = [HEAD, *_summary(rows), LEGEND]
    for family, found in groupby(sorted(rows, key=_family_place(rows)), lambda r: r[0].family):
        parts += [f"\n## {family[0].upper()}{family[1:]}\n\n", *_table(found)]
    return "".join([*parts, *_doubles(rows), *_failures(rows)])


def _family_place(rows: Measured) -> Callable[[tuple[Row, Record]], int]:
    """Families in the order in which they first appear."""
    families = list(dict.fromkeys(row.family for row, _ in rows))
    return lambda measured: families.index(measured[0].family)


def _table(rows: Iterable[tuple[Row, Record]]) -> list[str]:
    yielded = [f"| {' | '.join(COLUMNS)} |\n", "|" + "---|" * len(COLUMNS) + "\n"]
    return yielded + [f"| {' | '.join(_cells(row, record))} |\n" for row, record in rows]


# ---- the summary


def _summary(rows: Measured) -> list[str]:
    lines = [_share_line(rows), _error_line(rows), _memory_line(rows), _arena_line(rows)]
    lines += [_checked_line(rows), *_speed_lines(rows), _compile_line(rows), _commits_line(rows)]
    return [f"- {line}\n" for line in lines if line]


def _of(rows: Measured, part: str) -> list[tuple[str, Record]]:
    """The rows of which a part is measured."""
    found = ((row.name, record.get(part, {"failed": ""})) for row, record in rows)
    return [(name, figures) for name, figures in found if "failed" not in figures]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _share_line(rows: Measured) -> str:
    measured = _of(rows, "training")
    flops = sum(r["flops"] for _, r in measured)
    native = sum(r["native_flops"] for _, r in measured)
    if not flops:
        return f"**0 of {len(rows)} rows** are measured."
    whole = sum(r["stages"] == r["native_stages"] for _, r in measured)
    return (
        f"**{len(measured)} of {len(rows)} rows** are trained, {whole} of them without a host"
        f" stage; {100 * native / flops:.1f} % of their floating-point operations are native."
    )


def _error_line(rows: Measured) -> str:
    measured = _of(rows, "training")
    if not measured:
        return ""
    loss = max(measured, key=lambda r: r[1]["loss_error"])
    state = max(measured, key=lambda r: r[1]["state_error"])
    return (
        f"*Error*: at most {loss[1]['loss_error']:.0e} of the loss ({loss[0]}) and"
        f" {state[1]['state_error']:.0e} of parameters and buffers ({state[0]})."
    )


def _memory_line(rows: Measured) -> str:
    here, eager = dict(_of(rows, "memory")), dict(_of(rows, "eager-memory"))
    ratios = {
        name: here[name]["peak_bytes"] / eager[name]["peak_bytes"] for name in here if name in eager
    }
    if not ratios:
        return ""
    above = [f"{name} ({ratio:.3f})" for name, ratio in ratios.items() if ratio > 1]
    return (
        f"*Memory*: the most that is resident is {statistics.median(ratios.values()):.2f} of"
        f" eager's in the median; above eager's: {_names(above)}."
    )


def _arena_line(rows: Measured) -> str:
    ratios = {name: _arena(r) for name, r in _of(rows, "training")}
    if not ratios:
        return ""
    worst = max(ratios, key=lambda name: ratios[name])
    return f"*Arena*: at most {ratios[worst]:.2f} times the most that lives at once ({worst})."


def _arena(figures: Record) -> float:
    return figures["arena_bytes"] / max(figures["live_bytes"], 1)


def _checked_line(rows: Measured) -> str:
    failed = [row.name for row, record in rows if "failed" in record.get("checked", {})]
    passed = len(_of(rows, "checked"))
    if not passed and not failed:
        return ""
    return (
        "*Checked build*, which tests every address that is not proved right:"
        f" {passed} rows trained with no finding; with one: {_names(failed)}."
    )


def _speed_lines(rows: Measured) -> list[str]:
    measured = _of(rows, "speed")
    lines = []
    for peer, title in (("eager", "eager"), ("torch_compile", "`torch.compile`")):
        times = {
            name: r["step_s"][peer] / r["step_s"]["here"]
            for name, r in measured
            if peer in r["step_s"]
        }
        if times:
            slower = [f"{name} ({times[name]:.2f})" for name in times if times[name] < 1]
            lines.append(
                f"*Speed* against {title}: {statistics.median(times.values()):.1f} times as fast in"
                f" the median of {len(times)} rows; slower: {_names(slower)}."
            )
    without = Counter(r.get("torch_compile_failed") for _, r in measured)
    del without[None]
    if without:
        why = ", ".join(f"{count} × {reason}" for reason, count in without.items())
        lines.append(f"Without a `torch.compile` figure: {why}.")
    return lines


_NOTHING_COMPILED_S = 0.5
"""`torch.compile` hands a forward that it cannot trace to eager, and is done with it at once."""


def _compile_line(rows: Measured) -> str:
    measured = {name: r for name, r in _of(rows, "speed") if "torch_compile_s" in r}
    left = [name for name, r in measured.items() if r["torch_compile_s"] < _NOTHING_COMPILED_S]
    ratios = {
        name: r["compile_s"] / r["torch_compile_s"]
        for name, r in measured.items()
        if name not in left
    }
    if not ratios:
        return ""
    longer = [f"{name} ({ratio:.1f})" for name, ratio in ratios.items() if ratio > 1]
    return (
        f"*Compile time*: {statistics.median(ratios.values()):.2f} of `torch.compile`'s in the"
        f" median; longer: {_names(longer)}; it leaves all to eager: {_names(left)}."
    )


def _commits_line(rows: Measured) -> str:
    commits = Counter(part["commit"] for _, record in rows for part in record.values())
    if not commits:
        return ""
    named = ", ".join(f"{commit} ({count} parts)" for commit, count in commits.most_common())
    machines = dict.fromkeys(part["machine"] for _, record in rows for part in record.values())
    return f"Measured at {named} on {' and on '.join(machines)}."


# ---- the tables


def _cells(row: Row, record: Record) -> list[str]:
    training, speed = record.get("training", {}), record.get("speed", {})
    step = speed.get("step_s", {})
    here = step.get("here")
    return [
        row.name + ("¹" if row.double else ""),
        f"{training['native_stages']}/{training['stages']}" if "stages" in training else "–",
        _share(training),
        ", ".join(f"{count} {name}" for name, count in training.get("host", {}).items()),
        _number(training.get("loss_error"), ".0e"),
        _number(training.get("state_error"), ".0e"),
        _number(here and 1e3 * here, ".2f"),
        _number(here and step["eager"] / here, ".2f"),
        _number(step["torch_compile"] / here if "torch_compile" in step else None, ".2f"),
        _number(speed.get("compile_s"), ".1f"),
        speed.get("torch_compile_failed") or _number(speed.get("torch_compile_s"), ".1f"),
        _megabytes(record.get("memory", {})),
        _megabytes(record.get("eager-memory", {})),
        _number(_arena(training) if "live_bytes" in training else None, ".2f"),
    ]


def _share(training: Record) -> str:
    if "flops" not in training:
        return "–"
    return f"{100 * training['native_flops'] / max(training['flops'], 1):.1f} %"


def _megabytes(figures: Record) -> str:
    return _number(figures["peak_bytes"] / 1e6 if "peak_bytes" in figures else None, ".0f")


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _doubles(rows: Measured) -> list[str]:
    """What shows that float32 alone cannot decide the rows which are compared in float64."""
    found = [(n, r) for n, r in _of(rows, "training") if "here_from_double" in r]
    if not found:
        return []
    lines = [
        "\n## ¹ Compared in float64\n\n",
        "Deep networks with batch normalisation over few elements amplify rounding: eager in"
        " float32 is further from\neager in float64 than the tolerance of 1e-4, so that agreement"
        " with it would mean nothing. These rows are\ncompared in float64, above. How far ten"
        " steps in float32 are from eager in float64, here and in eager:\n\n",
        "| model | loss, here | loss, eager | state, here | state, eager |\n",
        "|---|---|---|---|---|\n",
    ]
    for name, r in found:
        pair = r["here_from_double"], r["eager_from_double"]
        cells = [f"{p[key]:.1e}" for key in ("loss_error", "state_error") for p in pair]
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    return lines


def _failures(rows: Measured) -> list[str]:
    failed = [
        f"- {row.name}, {part}: {figures['failed']}\n"
        for row, record in rows
        for part, figures in record.items()
        if "failed" in figures
    ]
    return ["\n## Failed\n\n", *failed] if failed else []
