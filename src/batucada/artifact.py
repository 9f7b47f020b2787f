"""Compiled program -> manifest and members of a PEF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batucada import __about__
from batucada.capture import Captured, OptimizerSpec
from batucada.codegen.build import Kernels, backward_parts, part_until
from batucada.codegen.lower import check_codes
from batucada.codegen.target import Target
from batucada.ir.graph import Node
from batucada.ir.text import graph_hash
from batucada.ir.types import ITEM_BYTES, DType
from batucada.mapping import Program, Stage
from batucada.pef import (
    BucketRecord,
    EntryRecord,
    HostRecord,
    Manifest,
    OptimizerRecord,
    Pef,
    PlaceRecord,
    ProducerRecord,
    ReplicaRecord,
    SectionRecord,
    SlotRecord,
    StageRecord,
    SymbolRecord,
    TargetRecord,
)

TEXT_MEMBERS = {
    "capture": "graph/00-capture.py",
    "optimizers": "graph/01-optimizers.py",
    "simplify": "graph/02-simplify.py",
    "layout": "graph/03-layout.py",
    "mapping": "stages.py",
    "kernels": "kernels.py",
    "module": "module.ll",
}
"""The member that holds the text of each step of the compiler."""


class StoredTexts(Mapping[str, str]):
    """The texts in a PEF, by step; each is unpacked when it is asked for."""

    def __init__(self, pef: Pef) -> None:
        self._pef = pef

    def __getitem__(self, level: str) -> str:
        return self._pef.text(TEXT_MEMBERS[level])

    def __iter__(self) -> Iterator[str]:
        return iter(TEXT_MEMBERS)

    def __len__(self) -> int:
        return len(TEXT_MEMBERS)


def pack(
    captured: Captured,
    specs: Sequence[OptimizerSpec],
    program: Program,
    kernels: Kernels,
    target: Target,
    texts: Mapping[str, str],
    code: bytes,
    constants: bytes,
    *,
    torch_version: str,
    report: dict[str, Any],
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of a program without a name, and the members by name: texts of every level,
    object code, constants.
    """
    stages = {stage.name: stage for entry in kernels.entries for stage in entry.stages}
    hyper = {h: g.defaults[k] for spec in specs for g in spec.groups for k, h in g.hyper.items()}
    hyper |= captured.rates
    manifest = Manifest(
        producer=ProducerRecord(__about__.__version__, torch_version),
        name="",
        training=captured.training,
        trace_hash=graph_hash(captured.graph),
        symbols=tuple(_symbols(captured, specs, program, hyper)),
        stages=tuple(_stage_record(stage, program, kernels) for stage in stages.values()),
        sections=tuple(
            SectionRecord(section, tuple(s.name for s in found))
            for section, found in program.sections.items()
            if found or (section == "REDUCE" and program.buckets)
        ),
        entries={
            e.name: EntryRecord(tuple(name for name, _ in e.parts), tuple(s.name for s in e.stages))
            for e in kernels.entries
        },
        slots=_slots(program),
        target=TargetRecord(target.triple, target.level, target.vector_bytes),
        hyperparameters=hyper,
        host={s.name: _host_record(s, program) for s in stages.values() if s.on_host},
        replicas=_replicas(program),
        optimizers=tuple(_optimizer_record(spec) for spec in specs),
        report={**report, "checks": _checks(program), "live_bytes": program.live_bytes},
    )
    members = {member: texts[level].encode() for level, member in TEXT_MEMBERS.items()}
    members[f"object/{target.level}.o"] = code
    if constants:
        members["constants.safetensors"] = constants
    return manifest, members


def _slots(program: Program) -> tuple[SlotRecord, ...]:
    """By place, not by name: an input may be called `memory`, and the program's own come first."""
    places = program.slots
    sizes = {
        places.index("arena"): program.arena_bytes,
        places.index("memory"): program.memory_bytes,
        places.index("gradients"): program.gradient_bytes,
    }
    sizes |= {
        b.slot: b.type.bytes for b in program.buffers.values() if b.space in ("input", "output")
    }
    return tuple(SlotRecord(name, sizes.get(slot, 0)) for slot, name in enumerate(places))


def _symbols(
    captured: Captured, specs: Sequence[OptimizerSpec], program: Program, hyper: Mapping[str, float]
) -> list[SymbolRecord]:
    owner = {
        state: p for spec in specs for p, states in spec.state.items() for state in states.values()
    }
    storage = {node.name: _storage(node) for node in program.graph.inputs}
    found = []
    for node in program.graph.inputs:
        default = captured.start_gradients.get(node.name, hyper.get(node.name))
        of = (
            node.name.removesuffix("__grad") if node.role == "tangent" else owner.get(node.name, "")
        )
        symbol = _symbol(program, node.name, node.role, storage[node.name], captured, of, default)
        found.append(replace(symbol, panel=_panel(node)))
    for spec in captured.outputs:
        found.append(_symbol(program, spec.name, "output", (), captured, "", None))
    for name in program.outputs:
        base = name.removesuffix("__grad")
        if name != base and name not in {spec.name for spec in captured.outputs}:
            found.append(_symbol(program, name, "gradient", storage[base], captured, base, None))
    return found


def _panel(node: Node) -> int:
    return node.integer("panel") if "panel" in dict(node.attrs) else 0


def _storage(node: Node) -> tuple[int, ...]:
    return node.integers("storage") if "storage" in dict(node.attrs) else ()


def _symbol(
    program: Program,
    name: str,
    role: Any,
    storage: tuple[int, ...],
    captured: Captured,
    of: str,
    default: float | None,
) -> SymbolRecord:
    """`shape` is PyTorch's; where the tensor is stored permuted, the buffer's is another."""
    buffer = program.buffers[name]
    shape = buffer.type.shape
    if role == "output":
        spec = next(spec for spec in captured.outputs if spec.name == name)
        shape = (*spec.shape, 2) if spec.dtype.is_complex else spec.shape
    elif role == "gradient":
        shape = program.graph.input(of).type.shape
    if storage:
        shape = tuple(shape[storage.index(d)] for d in range(len(shape)))
    is_complex = name in captured.complex or (
        role in ("gradient", "state") and of in captured.complex
    )
    return SymbolRecord(
        name=name,
        role=role,
        dtype=buffer.type.dtype,
        shape=shape,
        storage=storage,
        slot=buffer.slot,
        offset=buffer.offset,
        target=captured.paths.get(name, ""),
        of=of,
        default=default,
        is_complex=is_complex,
    )


def _stage_record(stage: Stage, program: Program, kernels: Kernels) -> StageRecord:
    reads = _read(stage, program)
    return StageRecord(
        name=stage.name,
        kind=stage.pattern,
        ops=tuple(node.op for node in stage.nodes),
        kernel=kernels.of_stage[stage.name][0].kernel.name if not stage.on_host else "",
        flops=stage.flops,
        bytes_read=sum(node.type.bytes for node in reads),
        bytes_written=sum(root.node.type.bytes for root in stage.roots),
        parallel=stage.parallel,
        sources=stage.sources,
    )


def _host_record(stage: Stage, program: Program) -> HostRecord:
    call = stage.nodes[0]
    return HostRecord(
        target=str(call.attr("target")),
        form=str(call.attr("form")),
        args=tuple(_place(arg, program.places[arg], program) for arg in call.args),
        results={
            str(root.node.integer("result")): _place(root.node, root.buffer, program)
            for root in stage.roots
        },
        source=call.src,
    )


def _place(node: Node, name: str, program: Program) -> PlaceRecord:
    buffer = program.buffers[name]
    return PlaceRecord(node.type.dtype, node.type.shape, buffer.slot, buffer.offset)


def _read(stage: Stage, program: Program) -> set[Node]:
    """The values in memory that a stage reads, through views and what it computes anew."""
    inside = set(stage.nodes)
    found: set[Node] = set()
    seen: set[Node] = set()
    todo = [arg for node in stage.nodes for arg in node.args if arg not in inside]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in program.places:
            found.add(node)
        else:
            todo += node.args
    return found


def _replicas(program: Program) -> ReplicaRecord | None:
    if not program.buckets:
        return None
    before = [0, *(bucket.updates for bucket in program.buckets)]
    buckets = [
        BucketRecord(
            _span(bucket.buffers, bucket.dtype, program),
            bucket.buffers,
            after=part_until("BCKWD", bucket.stages),
            update=part_until("OPT", bucket.updates) if bucket.updates > updates else None,
        )
        for bucket, updates in zip(program.buckets, before, strict=False)
    ]
    followed = _span(program.followed, "u8", program) if program.followed else None
    return ReplicaRecord(tuple(backward_parts(program)), tuple(buckets), followed)


def _span(names: Sequence[str], dtype: DType, program: Program) -> PlaceRecord:
    """The memory from the first to the last of buffers that lie one behind another."""
    first, last = program.buffers[names[0]], program.buffers[names[-1]]
    size = (last.offset + last.type.bytes - first.offset) // ITEM_BYTES[dtype]
    return PlaceRecord(dtype, (size,), first.slot, first.offset)


def _optimizer_record(spec: OptimizerSpec) -> OptimizerRecord:
    groups = [
        {
            "parameters": list(g.parameters),
            "options": g.options,
            "hyper": g.hyper,
            "defaults": g.defaults,
        }
        for g in spec.groups
    ]
    options = {
        "name": spec.name,
        "region": spec.region,
        "max_grad_norm": spec.max_grad_norm,
        "groups": groups,
        "state": spec.state,
    }
    return OptimizerRecord(spec.kind, options, tuple(p for g in spec.groups for p in g.parameters))


def _checks(program: Program) -> list[dict[str, Any]]:
    """What each code that a kernel can stop with means."""
    return [
        {"code": code, "size": node.attr("size"), "ignore": node.attr("ignore"),
         "low": node.attr("low"), "source": node.src, "input": _checked_input(node)}
        for node, code in check_codes(program).items()
    ]  # fmt: skip


def _checked_input(node: Node) -> str:
    while node.args:
        node = node.args[0]
    return node.name if node.op == "input" else ""
