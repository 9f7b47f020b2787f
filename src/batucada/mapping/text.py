"""Sections and stages as text: what a person reads to see how a model falls apart."""

from __future__ import annotations

from batucada.ir.graph import Node
from batucada.mapping.program import Program, Stage


def print_program(program: Program) -> str:
    names = {node: node.name for node in program.graph.inputs}
    names |= {node: f"v{i}" for i, node in enumerate(program.graph.nodes)}
    lines = [f"def {program.graph.name}():"]
    groups = [*program.sections.items(), ("FUSED", program.fused), ("REGRAD", program.regrad)]
    for section, stages in groups:
        if stages:
            lines.append(f"    with section({section!r}):")
            lines += [line for stage in stages for line in _stage_lines(stage, names)]
    return "\n".join(lines) + "\n"


def _stage_lines(stage: Stage, names: dict[Node, str]) -> list[str]:
    reduced = f", reduced={sorted(stage.reduced)}" if stage.reduced else ""
    tile = ""
    if stage.tile is not None:
        t = stage.tile
        rows = f"{t.outer}x{t.rows}" if t.outer > 1 else str(t.rows)
        rest = f", cut={t.cut}" if t.cut else ""
        rest += ", stored" if t.stored else ""
        tile = f", tile={t.form}({rows}x{t.vectors}, k={t.k_block}, m={t.m_block}{rest})"
    shape = f"{stage.pattern}, {list(stage.extents)}{reduced}{tile}"
    head = f"        with stage({stage.name!r}, {shape}):"
    lines = [f"{head}  # {stage.flops} flops"]
    for node in stage.nodes:
        args = [names[arg] for arg in node.args] + [f"{k}={v!r}" for k, v in node.attrs]
        lines.append(
            f"{' ' * 12}{names[node]} = {node.op}({', '.join(args)})"
            f"  # {node.type} {node.src}".rstrip()
        )
    lines += [f"            {root.buffer} = store({names[root.node]})" for root in stage.roots]
    return lines
