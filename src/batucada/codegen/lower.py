"""Stages -> kernels of the loop language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batucada.codegen.attention import Forward
from batucada.codegen.attention_backward import Backward
from batucada.codegen.border import Places, Taps
from batucada.codegen.boxes import Boxes
from batucada.codegen.contract import Contract
from batucada.codegen.ctc import Ctc
from batucada.codegen.cut import Cut
from batucada.codegen.emitter import Emitter
from batucada.codegen.nest import Nest
from batucada.codegen.packed import Packed
from batucada.codegen.panels import Panels
from batucada.codegen.put import Put
from batucada.codegen.scan import Scan
from batucada.codegen.sort import ArgSort, Search
from batucada.codegen.streamed import Streamed
from batucada.ir.graph import Node
from batucada.ir.loops import For, Kernel
from batucada.mapping import Program, Stage
from batucada.mapping.program import Tile
from batucada.ops.border import border_of, sums_over_images


@dataclass(frozen=True, slots=True)
class Lowered:
    """A kernel of a stage, and what it is called with: names of buffers, and the byte in each."""

    kernel: Kernel
    buffers: tuple[tuple[str, int], ...]
    parallel: bool = False

    @property
    def trip(self) -> tuple[int, int, int]:
        """start, stop and step of the loop that may be split, (0, 0, 1) where there is none."""
        head = self.kernel.body[0] if self.kernel.body else None
        if self.parallel and isinstance(head, For) and head.parallel:
            return head.start, head.stop, head.step
        return 0, 0, 1


def check_codes(program: Program) -> dict[Node, int]:
    """The code with which a kernel stops at each check: from 1 in program order."""
    checks = [node for node in program.graph.nodes if node.op == "check_index"]
    return {node: code for code, node in enumerate(checks, 1)}


_Writer = Boxes | Ctc | Panels | Put | Scan | ArgSort | Search | Forward | Backward

_WRITERS: dict[str, type[_Writer]] = {
    "attention": Forward, "attention_backward": Backward,
    "cat": Boxes, "ctc": Ctc, "pad": Boxes, "panels": Panels, "put": Put, "scan": Scan,
    "argsort": ArgSort, "searchsorted": Search,
}  # fmt: skip


def lower_stage(program: Program, stage: Stage, codes: Mapping[Node, int]) -> list[Lowered]:
    writer = _WRITERS.get(stage.nodes[0].op)
    if writer is not None:
        emitter = Emitter(program, stage, codes)
        writer(emitter).write()
        return [_lowered(emitter, stage.name)]
    if stage.contract is not None:
        return _contract(program, stage, codes)
    emitter = Emitter(program, stage, codes)
    nest = Nest(emitter)
    nest.write()
    return [_lowered(emitter, stage.name)]


def _lowered(emitter: Emitter, name: str) -> Lowered:
    kernel = emitter.kernel(name)
    return Lowered(kernel, tuple((name, 0) for name in emitter.params), _is_parallel(kernel))


def _is_parallel(kernel: Kernel) -> bool:
    return len(kernel.body) == 1 and isinstance(kernel.body[0], For) and kernel.body[0].parallel


def _packed(program: Program, stage: Stage, tile: Tile, codes: Mapping[Node, int]) -> list[Lowered]:
    """Whole blocks of columns, which threads may share, and the columns that are left."""
    assert stage.contract is not None
    n = stage.contract.type.shape[-1]
    whole, every = n // tile.n_block, -(-n // tile.n_block)
    found = []
    for name, start, stop in ((stage.name, 0, whole), (f"{stage.name}_rest", whole, every)):
        if start < stop:
            emitter = Emitter(program, stage, codes)
            _writer_of(stage.contract)(emitter).write_columns(
                start, stop, stage.parallel and stop - start > 1
            )
            found.append(_lowered(emitter, name))
    return found


def _writer_of(product: Node) -> type[Packed]:
    if border_of(product.args[0]) is None:
        return Packed
    return Taps if sums_over_images(product) else Places


def _streamed(program: Program, stage: Stage, codes: Mapping[Node, int]) -> list[Lowered]:
    """The sums of all parts, which threads may share, and their totals."""
    parts, totals = Emitter(program, stage, codes), Emitter(program, stage, codes)
    Streamed(parts).write_parts(stage.parallel)
    Streamed(totals).write_totals()
    return [_lowered(parts, stage.name), _lowered(totals, f"{stage.name}_totals")]


def _contract(program: Program, stage: Stage, codes: Mapping[Node, int]) -> list[Lowered]:
    """Whole blocks of rows, which threads may share, and the rows that are left."""
    assert stage.contract is not None
    assert stage.tile is not None
    m = stage.contract.type.shape[-2]
    tile = stage.tile
    if tile.form == "packed":
        return _packed(program, stage, tile, codes)
    if tile.form == "streamed":
        return _streamed(program, stage, codes)
    step = tile.m_block if tile.blocks > 1 or tile.cut or tile.form == "dot" else tile.rows
    step = max(1, min(step, m))
    whole = m - m % step
    found = []
    for name, start, stop, width in (
        (stage.name, 0, whole, step),
        (f"{stage.name}_rest", whole, m, m - whole),
    ):
        if start >= stop:
            continue
        emitter = Emitter(program, stage, codes)
        writer = Cut(emitter) if tile.cut else Contract(emitter)
        apart = stop - start > width or len(stage.contract.type.shape) > 2
        writer.write(start, stop, width, stage.parallel and apart)
        found.append(_lowered(emitter, name))
    return found
