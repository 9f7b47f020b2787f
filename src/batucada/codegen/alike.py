"""Stages that do the same on other buffers, or elsewhere in them: they share their kernels.

A repeated layer, a step of an unrolled recurrence: such a stage is recognised before it is lowered.
Its key holds everything that its kernels depend on, with buffers numbered in the order in which
they are met, and the distance of each read from the first one of its buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batucada.ir.access import memory_index
from batucada.ir.graph import Node
from batucada.ir.loops import Index
from batucada.ir.types import ITEM_BYTES
from batucada.mapping import Program, Stage
from batucada.ops import OPS

_ADDRESSING = frozenset({"lookup", "index", "host"})  # where a kernel's own values are addresses


@dataclass(frozen=True, slots=True)
class Likeness:
    """Stages of equal `key` differ in nothing but `buffers`: names, and the byte in each from which
    its reads are counted.
    """

    key: str
    buffers: tuple[tuple[str, int], ...]


def likeness(program: Program, stage: Stage, codes: Mapping[Node, int]) -> Likeness:
    return _Reader(program, stage, codes).read()


class _Reader:
    def __init__(self, program: Program, stage: Stage, codes: Mapping[Node, int]) -> None:
        self.program = program
        self.stage = stage
        self.codes = codes
        self.inside = set(stage.nodes)
        self.nodes: dict[Node, int] = {}
        self.lines: list[object] = []
        self.starts: dict[str, int] = {}  # a buffer -> the element from which its reads are counted
        self.absolute = False

    def read(self) -> Likeness:
        stage = self.stage
        reached = self._reached()
        self.absolute = any(OPS[node.op].kind in _ADDRESSING for node in reached)
        for node in reached:
            self.lines.append(self._described(node))
        product = self.nodes[stage.contract] if stage.contract is not None else None
        roots = [(self.nodes[root.node], self._written(root.buffer)) for root in stage.roots]
        own_memory = [self._written(name) for name in (stage.scratch, stage.panels, stage.rows)]
        own = [self.nodes[node] for node in stage.nodes]
        shape = (stage.extents, sorted(stage.reduced), stage.tile, stage.parallel)
        buffers = self.program.buffers
        types = [buffers[name].type for name in self.starts]
        key = repr((shape, product, roots, own_memory, own, types, self.lines))
        places = [
            (name, start * ITEM_BYTES[buffers[name].type.dtype])
            for name, start in self.starts.items()
        ]
        return Likeness(key, tuple(places))

    def _reached(self) -> list[Node]:
        """The stage's nodes and what it computes anew, arguments first."""
        stack = [(node, False) for node in reversed(self.stage.nodes)]
        found: dict[Node, int] = {}
        while stack:
            node, done = stack.pop()
            if node in found or (node not in self.inside and self._memory(node) is not None):
                continue
            if done:
                found[node] = len(found)
            else:
                stack.append((node, True))
                stack += [(arg, False) for arg in reversed(node.args)]
        self.nodes = found
        return list(found)

    def _in_memory(self, node: Node) -> bool:
        return node in self.program.places and node not in self.inside

    def _described(self, node: Node) -> object:
        place = self._place(node)
        if place is not None:
            return place
        check = self.codes.get(node), node.section == self.stage.section
        args = [(self._place(arg) or self.nodes[arg], arg.type.shape) for arg in node.args]
        own = {"check_index": check, "mul": node in self.program.shared}.get(node.op)
        return node.op, node.attrs, node.type, args, own

    def _memory(self, node: Node) -> tuple[Node, Index] | None:
        """What in memory a value is, whole or seen through views, as an affine index."""
        at = [Index.of(f"d{i}") for i in range(len(node.type.shape))]
        return memory_index(node, at, self._in_memory)

    def _place(self, node: Node) -> object:
        found = self._memory(node)
        if found is None:
            return None
        name = self.program.places[found[0]]
        number = self._start(name, 0 if self.absolute else found[1].offset)
        distance, slack = found[1].offset - self.starts[name], self.program.buffers[name].has_slack
        return "at", number, distance, found[1].terms, node.type, slack

    def _written(self, buffer: str) -> object:
        return (self._start(buffer, 0), -self.starts[buffer]) if buffer else None

    def _start(self, buffer: str, offset: int) -> int:
        """The number of a buffer; `offset` is where it is read, if this is the first time."""
        self.starts.setdefault(buffer, offset)
        return list(self.starts).index(buffer)
