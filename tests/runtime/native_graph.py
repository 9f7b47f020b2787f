"""Maps a graph, compiles it in memory and runs its entries on numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batucada.codegen.build import link, lower_program
from batucada.codegen.objects import assemble
from batucada.codegen.target import host_target
from batucada.ir.graph import Graph
from batucada.ir.loops_verify import verify_kernel
from batucada.ir.types import Type
from batucada.mapping import Program, map_graph
from batucada.ops.base import NUMPY
from batucada.runtime.native import NativeModule

Array = np.ndarray[Any, np.dtype[Any]]
Values = dict[tuple[str, str], Array]


class NativeGraph:
    """The memory and the native code of a graph.  `values` are its inputs, by name."""

    def __init__(self, graph: Graph, values: Mapping[str, Array], checked: bool = True) -> None:
        self.graph = graph
        self.program: Program = map_graph(graph)
        kernels = lower_program(self.program)
        for kernel in kernels.all:
            verify_kernel(kernel)
        target = host_target()
        module = link(self.program, kernels, target, checked)
        self.module = NativeModule.load(assemble(module.text, target))
        self.blocks = [_block(self._bytes(slot)) for slot in range(len(self.program.slots))]
        for name, value in values.items():
            self.view(name)[...] = value

    def _bytes(self, slot: int) -> int:
        buffers = [b for b in self.program.buffers.values() if b.slot == slot]
        sizes = {
            "arena": self.program.arena_bytes,
            "memory": self.program.memory_bytes,
            "gradients": self.program.gradient_bytes,
        }
        return sizes.get(self.program.slots[slot], max((b.type.bytes for b in buffers), default=0))

    def view(self, name: str, shown: Type | None = None) -> Array:
        """The buffer called `name`; a matrix that is stored transposed is shown as stored."""
        buffer = self.program.buffers[name]
        shown = shown or buffer.type
        block = self.blocks[buffer.slot][buffer.offset : buffer.offset + shown.bytes]
        return block.view(NUMPY[shown.dtype]).reshape(shown.shape)

    def call(self, *entries: str) -> int:
        """Run entries in order, those that the program has; the code that the last one returned."""
        table = (ctypes.c_int64 * len(self.blocks))(*(b.ctypes.data for b in self.blocks))
        table[self.program.slots.index("pool")] = 0
        code = 0
        for entry in entries:
            if entry in self.module:
                code = self.module.function(entry, ctypes.c_void_p)(ctypes.addressof(table))
        return code

    def results(self, roles: Sequence[str] = ("output", "gradient", "update")) -> Values:
        found: Values = {}
        for out in self.graph.outputs:
            suffix = "__grad" if out.role == "gradient" else ""
            if out.role in roles:
                found[out.role, out.name] = self.view(out.name + suffix, out.node.type).copy()
        return found


def _block(size: int) -> Array:
    """Aligned to 64 bytes and filled with a pattern that is NaN in every float dtype."""
    memory = np.full(size + 128, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + max(size, 1)]
