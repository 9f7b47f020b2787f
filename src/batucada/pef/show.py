"""A PEF as text for people.  Reads only; the command line prints what these functions return."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from batucada.errors import PefError
from batucada.ir.types import Type
from batucada.pef.manifest import Manifest, StageRecord
from batucada.pef.read import Pef

TEXT_SUFFIXES = (".py", ".ll", ".json", ".txt")


def summary(pef: Pef) -> str:
    """What the program is: its target, symbols, sections and stages, and the file's members."""
    manifest = pef.manifest
    sizes = [("", name, f"{pef.archive.sizes[name]:,}") for name in pef.names]
    parts = [
        _heading(manifest),
        "symbols\n" + columns(_symbol_rows(manifest), right=()),
        *(
            f"section {section.type}\n" + _stage_table(manifest, section.stages)
            for section in manifest.sections
        ),
        *_fused(manifest),
        *_host(manifest),
        *(
            f"entry {name} = {' '.join(entry.parts)}: " + " ".join(entry.stages)
            for name, entry in manifest.entries.items()
        ),
        "members, bytes\n" + columns(sizes, right=(2,)),
    ]
    return "\n\n".join(parts)


def _heading(manifest: Manifest) -> str:
    use = "training" if manifest.training else "inference"
    target, producer = manifest.target, manifest.producer
    rows = [
        ("program", f"{manifest.name}, {use}"),
        ("made by", f"Batucada {producer.batucada}, PyTorch {producer.torch}"),
        ("target", f"{target.level}, {target.triple}, vectors of {target.vector_bytes} bytes"),
        ("graph", manifest.trace_hash),
        ("memory", f"{sum(slot.bytes for slot in manifest.slots):,} bytes"),
    ]
    for optimizer in manifest.optimizers:
        rows.append(
            ("optimizer", f"{optimizer.class_name}, {len(optimizer.parameters)} parameters")
        )
    rows += [("hyper", f"{name} = {value:g}") for name, value in manifest.hyperparameters.items()]
    if manifest.metadata:
        rows.append(("metadata", f"{len(manifest.metadata)} entries, shown by --json"))
    return columns(rows, right=())


def _fused(manifest: Manifest) -> list[str]:
    """The stages that only a whole step runs: updates joined to the products of their gradients."""
    in_sections = {name for section in manifest.sections for name in section.stages}
    names = [stage.name for stage in manifest.stages if stage.name not in in_sections]
    return ["fused, in a whole step\n" + _stage_table(manifest, names)] if names else []


def _host(manifest: Manifest) -> list[str]:
    """The operators that PyTorch runs, the most frequent first."""
    if not manifest.host:
        return []
    counts = Counter(record.target for record in manifest.host.values())
    rows = [("", "operator", "stages", "source")]
    for target, count in counts.most_common():
        lines = dict.fromkeys(r.source for r in manifest.host.values() if r.target == target)
        more = f" +{len(lines) - 1}" if len(lines) > 1 else ""
        rows.append(("", target, str(count), next(iter(lines)) + more))
    return ["host stages, run by PyTorch\n" + columns(rows, right=(2,))]


def _symbol_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    rows = [("", "role", "name", "type", "stored as", "slot+offset", "of")]
    for symbol in manifest.symbols:
        stored = ",".join(map(str, symbol.storage)) or "row major"
        stored += f", panels of {symbol.panel}" if symbol.panel else ""
        place = f"{manifest.slots[symbol.slot].name}+{symbol.offset}"
        kind = str(Type(symbol.dtype, symbol.shape))
        of = symbol.of or symbol.target
        rows.append(("", symbol.role, symbol.name, kind, stored, place, of))
    return rows


def _stage_table(manifest: Manifest, names: Iterable[str]) -> str:
    rows = [("", "stage", "kind", "flops", "read", "written", "threads", "ops", "source")]
    rows += [_stage_row(manifest.stage_by_name[name]) for name in names]
    return columns(rows, right=(3, 4, 5))


def _stage_row(stage: StageRecord) -> tuple[str, ...]:
    counts = (f"{n:,}" for n in (stage.flops, stage.bytes_read, stage.bytes_written))
    threads = "many" if stage.parallel else "one"
    source = stage.sources[0] if stage.sources else ""
    more = f" +{len(stage.sources) - 1}" if len(stage.sources) > 1 else ""
    return ("", stage.name, stage.kind, *counts, threads, " ".join(stage.ops), source + more)


def columns(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Rows as aligned text; the columns with an index in `right` are flushed right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def text_levels(pef: Pef) -> dict[str, str]:
    """Level name -> text member: `graph/00-capture.py` is the level `capture`, and so on."""
    texts = (name for name in pef.names if name.endswith(TEXT_SUFFIXES))
    return {level_name(name): name for name in texts}


def level_name(member: str) -> str:
    stem = member.rpartition("/")[2].rpartition(".")[0]
    return re.sub(r"^\d+-", "", stem)


def level_text(pef: Pef, level: str) -> str:
    """The text of a level, by its name or its member's; PefError lists the levels there are."""
    levels = text_levels(pef)
    member = level if level in levels.values() else levels.get(level)
    if member is None:
        known = ", ".join([*levels, "asm"])
        raise PefError(f"{pef.path}: there is no level {level!r}; it has: {known}")
    return pef.text(member)
