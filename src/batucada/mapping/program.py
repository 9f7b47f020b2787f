"""The mapped program: stages over buffers, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from batucada.ir.access import Position, nontrivial, spread
from batucada.ir.graph import Graph, Node, Section
from batucada.ir.loops import Index
from batucada.ir.types import ITEM_BYTES, DType, Type
from batucada.ops import OPS

Pattern = Literal["map", "reduce", "contract", "host"]
Space = Literal["arena", "memory", "input", "output"]

SLACK = 7  # elements behind every buffer of `arena` and `memory` that a vector may read


@dataclass(frozen=True, slots=True)
class Buffer:
    """Where a tensor lies.  `arena` is planned scratch, `memory` holds what lives from step to
    step; inputs and outputs are given at each run, a slot each.  `offset` is in bytes."""

    name: str
    type: Type
    space: Space
    slot: int
    offset: int = 0

    @property
    def has_slack(self) -> bool:
        """Whether SLACK elements may be read behind it."""
        return self.space in ("arena", "memory")

    @property
    def bytes(self) -> int:
        """What it takes up, with what lies behind it."""
        return self.type.bytes + SLACK * ITEM_BYTES[self.type.dtype]


@dataclass(frozen=True, slots=True)
class Root:
    """A value that a stage writes, and where."""

    node: Node
    buffer: str


@dataclass(frozen=True, slots=True)
class Tile:
    """How a product is blocked.  `outer`: `rows` x `vectors` registers of sums, vectors along N,
    the left operand spread; `dot`: vectors along K.  The first dimension of K is cut in `blocks` of
    `k_block` (sums pass through the stage's scratch between them), M in blocks of `m_block` rows
    that a thread takes at a time.  A tile of rows that are short spans `outer` of them.
    `packed` is `outer` for a large right operand: a thread takes `n_block` columns at a time and
    copies what it needs of each block of K to scratch, panel by panel (`n_copied` columns with the
    last panel filled up), or reads it where it is `stored` so; of a matrix on the left it takes
    `m_block` rows at a time, and with `pack_left` copies them, tile by tile.
    `streamed` is `outer` for few rows and a large right operand, read as it lies, `k_block` rows at
    a time, in `blocks` parts of K that threads share; each part has its own sums in the scratch.
    With a `cut`, it is that dimension of K whose blocks are taken; those before it are loops around
    the blocks, and all sums start as zeros in the scratch and are finished in a pass of their own.
    Where the left operand has a border, the rows of a tile are images, `m_block` of them at a time.
    """

    form: Literal["outer", "dot", "packed", "streamed"]
    rows: int
    vectors: int
    k_block: int
    m_block: int
    blocks: int = 1
    outer: int = 1
    n_block: int = 0
    pack_left: bool = False
    cut: int = 0
    stored: bool = False
    n_copied: int = 0


@dataclass(frozen=True, slots=True)
class Blocking:
    """How attention is cut.  A worker takes one pair of batch and head after the other; in it, over
    blocks of `keys` keys, blocks of `rows` queries.  `areas` are the parts of its scratch: name and
    number of elements.
    """

    rows: int
    keys: int
    workers: int
    areas: tuple[tuple[str, int], ...]

    @property
    def worker_size(self) -> int:
        return sum(size for _, size in self.areas)


@dataclass(frozen=True, slots=True)
class Stage:
    """One loop nest over `extents`; dimensions in `reduced` are summed up within it.

    `nodes` are the operations it computes in program order.  A contract has its product as
    `contract` and everything else as epilogue.  Values of other stages are read from their buffers.
    """

    name: str
    section: Section
    extents: tuple[int, ...]
    reduced: frozenset[int]
    nodes: tuple[Node, ...]
    roots: tuple[Root, ...]
    contract: Node | None = None
    tile: Tile | None = None
    blocking: Blocking | None = None
    scratch: str = ""  # a buffer for partial sums of a product blocked along K, or for `blocking`
    panels: str = ""  # a buffer for copies of the right operand, where its tile is `packed`
    rows: str = ""  # ... and of the left one
    parallel: bool = False

    @property
    def pattern(self) -> Pattern:
        if self.on_host:
            return "host"
        return "contract" if self.contract is not None else "reduce" if self.reduced else "map"

    @property
    def on_host(self) -> bool:
        """PyTorch runs it: its nodes are the results of one call."""
        return OPS[self.nodes[0].op].kind == "host"

    @property
    def flops(self) -> int:
        return sum(
            OPS[n.op].flops(n.type, *(a.type for a in n.args), **dict(n.attrs)) for n in self.nodes
        )

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node.src for node in self.nodes if node.src))


@dataclass(frozen=True, slots=True)
class Sweep:
    """`forward` is the first product of the next step, `update` the update of its weight in this
    one.  `following` gives the buffers of the next step's input and outputs by this one's."""

    forward: Stage
    update: Stage
    following: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Buffers of gradients, one behind another, that replicas reduce in one go: as soon as so many
    `stages` of BCKWD have run.  So many `updates`, stages of OPT, need no more than this bucket and
    those before it; 0 where they need the norm of all."""

    dtype: DType
    buffers: tuple[str, ...]
    stages: int
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """Stages by the section that runs them.  `fused` is BCKWD and OPT of a whole step in one,
    with each update an epilogue of its gradient; empty where that cannot be.  `regrad`
    recomputes gradients that `fused` did not store.  `sweep` joins two stages of a whole step in
    a loop (see `sweep.py`).  `buckets` are what replicas reduce after BCKWD, `followed` the buffers
    of the model in which they follow the first of them.  `shared` are the products of elements that
    several values are made from: for each of them they are rounded, so that x - max(x) of equal
    x is 0."""

    graph: Graph
    sections: dict[Section, tuple[Stage, ...]]
    fused: tuple[Stage, ...]
    regrad: tuple[Stage, ...]
    buffers: dict[str, Buffer]
    places: dict[Node, str]  # a node that lies in memory -> its buffer
    outputs: dict[str, str]  # output or gradient symbol -> buffer
    arena_bytes: int
    memory_bytes: int
    gradient_bytes: int
    live_bytes: int  # the most arena bytes that live at once: no plan can need fewer
    sweep: Sweep | None = None
    buckets: tuple[Bucket, ...] = ()
    followed: tuple[str, ...] = ()
    slots: tuple[str, ...] = field(default=())  # names of the slots, in order
    shared: frozenset[Node] = frozenset()


def canonical(
    shape: tuple[int, ...],
    extents: tuple[int, ...],
    reduced: frozenset[int],
    point: Sequence[Index] | None = None,
) -> Position | None:
    """The index of a value of `shape` at a point of a domain (by default the variables d0, d1,
    ...): a value of the whole domain or, in a reduction, one that has only the dimensions which
    are kept.  None if neither."""
    variables = point or [Index.of(f"d{i}") for i in range(len(extents))]
    if nontrivial(shape) == extents:
        return spread(shape, variables)
    kept = [i for i in range(len(extents)) if i not in reduced]
    if reduced and nontrivial(shape) == tuple(extents[i] for i in kept):
        return spread(shape, [variables[i] for i in kept])
    return None
