"""Sections and stages of a graph, their order, and the buffers between them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from heapq import heappop, heappush

from batucada.ir.graph import Graph, Node, Output, Section
from batucada.ir.types import Type
from batucada.mapping.attention import blocking_of
from batucada.mapping.buckets import (
    find_buckets,
    in_order_of_buckets,
    lying_in,
    own_gradients,
    reduced_gradients,
)
from batucada.mapping.copies import copied_updates, old_values, own_outputs
from batucada.mapping.fuse import Fusion, Group
from batucada.mapping.lives import lives
from batucada.mapping.memory import Plan, aligned, plan
from batucada.mapping.panels import store_in_panels
from batucada.mapping.program import Bucket, Buffer, Program, Root, Space, Stage, Sweep, Tile
from batucada.mapping.sweep import find_sweep
from batucada.mapping.tiling import tile_of
from batucada.mapping.update import Fused, fuse_updates
from batucada.ops import OPS
from batucada.ops.attention import accumulator

SECTIONS: tuple[Section, ...] = ("FWD", "BCKWD", "REDUCE", "GRADNORM", "OPT")
ARENA, POOL, MEMORY, GRADIENTS = "arena", "pool", "memory", "gradients"
_PARALLEL_FLOPS = 200_000  # below this, waking another thread costs more than it brings


def map_graph(graph: Graph, bucket_bytes: int = 2**22) -> Program:
    """Stages of every section, the fused update, and a place for every value.  See `Program`."""
    graph = own_gradients(store_in_panels(graph))
    reduced = reduced_gradients(graph)
    graph, copies = old_values(own_outputs(graph))
    while True:
        claims = {lying_in(out): out for out in graph.outputs}
        kept = {arg for copy in copies for arg in copy.args}
        fusion = Fusion(graph, claims.keys() | copies | kept, copies)
        try:
            return _Builder(graph, fusion, claims).program(reduced, bucket_bytes)
        except _OverwrittenError as found:
            graph, more = copied_updates(graph, found.updates)
            copies |= more


class _OverwrittenError(Exception):
    """Updates, by name, that cannot be written in place: what they overwrite is still read."""

    def __init__(self, updates: set[str]) -> None:
        assert updates, "stages wait for each other"
        super().__init__(updates)
        self.updates = updates


class _Builder:
    def __init__(self, graph: Graph, fusion: Fusion, claims: dict[Node, Output]) -> None:
        self.graph = graph
        self.fusion = fusion
        self.claims = claims
        self.reads = {group: self._reads(group) for group in fusion.groups}
        self.read_elsewhere = {leaf for reads in self.reads.values() for leaf in reads}
        self.known_reads: dict[tuple[Node, ...], set[str]] = {}
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self.buffers: dict[str, Buffer] = {}
        self.places: dict[Node, str] = {}
        self.outputs: dict[str, str] = {}
        self.slots = [ARENA, POOL, MEMORY, GRADIENTS]
        self.sizes = {MEMORY: 0, GRADIENTS: 0}  # in bytes

    def _reads(self, group: Group) -> set[Node]:
        found: set[Node] = set()
        for node in group.nodes:
            found |= {
                leaf
                for leaf in self.fusion.leaves_below(node)
                if self.fusion.group_of.get(leaf) is not group
            }
        return found

    def program(self, reduced: frozenset[str], bucket_bytes: int) -> Program:
        followed = self._followed() if reduced else []
        for node in sorted(self.graph.inputs, key=followed.__contains__):
            self._place_input(node)
        stages: dict[Section, tuple[Stage, ...]] = {}
        count = 0
        stage_of: dict[Group, Stage] = {}
        for section in SECTIONS:
            groups = self._ordered([g for g in self.fusion.groups if g.section == section])
            for group in groups:
                stage_of[group] = self._stage(group, f"s{count}")
                count += 1
            stages[section] = tuple(stage_of[g] for g in groups)
        fused = fuse_updates(stages, self.outputs, self._stage_reads)
        buckets = self._lay_out_gradients(stages["BCKWD"], fused, reduced, bucket_bytes)
        if not stages["GRADNORM"]:
            ordered = in_order_of_buckets(stages["OPT"], buckets, self._stage_reads)
            stages["OPT"], buckets = ordered
        every = [stage for found in stages.values() for stage in found]
        native = not any(stage.on_host for stage in every)  # else there is no loop to sweep in
        sweep = find_sweep(stages["FWD"], fused.stages, self.outputs) if native else None
        for name, following in sweep.following.items() if sweep is not None else ():
            self._slot_buffer(following, self.buffers[name].type, self.buffers[name].space)
        arena = self._plan_arena(stages, fused, sweep)
        return Program(
            graph=self.graph,
            sections=stages,
            fused=fused.stages,
            regrad=fused.regrad,
            buffers=self.buffers,
            places=self.places,
            outputs=self.outputs,
            arena_bytes=arena.bytes,
            memory_bytes=self.sizes[MEMORY],
            gradient_bytes=self.sizes[GRADIENTS],
            live_bytes=arena.live_bytes,
            sweep=sweep,
            buckets=buckets,
            followed=tuple(node.name for node in followed),
            slots=tuple(self.slots),
            shared=self._shared_products(),
        )

    def _shared_products(self) -> frozenset[Node]:
        users, outputs = self.graph.users(), {out.node for out in self.graph.outputs}
        products = (node for node in self.graph.nodes if node.op == "mul")
        return frozenset(n for n in products if len(users[n]) + (n in outputs) > 1)

    def _followed(self) -> list[Node]:
        """The model's buffers that a step changes."""
        changed = {out.name for out in self.graph.of_role("update")}
        return [node for node in self.graph.by_role("buffer") if node.name in changed]

    def _lay_out_gradients(
        self,
        backward: tuple[Stage, ...],
        fused: Fused,
        reduced: frozenset[str],
        bucket_bytes: int,
    ) -> tuple[Bucket, ...]:
        """Those of a bucket one behind another, then those that are not reduced, at last those that
        a whole step does not write: their pages are never touched then.
        """
        known = [f"{o.name}__grad" for o in self.claims.values() if o.role == "gradient"]
        names = [name for name in self.buffers if name in set(known)]  # as the stages write them
        wanted = [name for name in names if name.removesuffix("__grad") in reduced]
        buckets = find_buckets(backward, wanted, self.buffers, self._stage_reads, bucket_bytes)
        ordered = [name for bucket in buckets for name in bucket.buffers]
        written = {root.buffer for stage in fused.stages for root in stage.roots}
        names.sort(key=lambda name: name not in written)
        for name in dict.fromkeys([*ordered, *names]):
            self._memory_buffer(name, self.buffers[name].type, GRADIENTS)
        return buckets

    def _place_input(self, node: Node) -> None:
        if node.role == "input":
            self._slot_buffer(node.name, node.type, "input")
        else:
            self._memory_buffer(node.name, node.type, MEMORY)
        self.places[node] = node.name

    def _slot_buffer(self, name: str, type: Type, space: Space) -> None:
        self.slots.append(name)
        self.buffers[name] = Buffer(name, type, space, len(self.slots) - 1)

    def _memory_buffer(self, name: str, type: Type, where: str) -> None:
        slot = self.slots.index(where)
        self.buffers[name] = Buffer(name, type, "memory", slot, self.sizes[where])
        self.sizes[where] += aligned(self.buffers[name].bytes)

    def _ordered(self, groups: list[Group]) -> list[Group]:
        """Readers before the writer of what they read in place, arguments first, else as they
        were made.
        """
        writers = {self.claims[n].name: g for g in groups for n in g.nodes if self._updates(n)}
        here = set(groups)
        unsafe = {name for name, group in writers.items() if not self._in_place(name, group)}
        if unsafe:
            raise _OverwrittenError(unsafe)
        waits = {g: g.after & here for g in groups}
        for group in groups:
            for leaf in self.reads[group]:
                writer = writers.get(leaf.name) if leaf.op == "input" else None
                if writer is not None and writer is not group:
                    waits[writer].add(group)
        checks_first = sorted(groups, key=lambda g: all(n.op != "check_index" for n in g.nodes))
        done = _topological(_made_late(checks_first), waits)
        if len(done) < len(groups):
            raise _OverwrittenError({n for n, group in writers.items() if group not in done})
        return done

    def _in_place(self, name: str, group: Group) -> bool:
        root = next(n for n in group.nodes if self._updates(n) and self.claims[n].name == name)
        old = next(
            (leaf for leaf in group.leaves if leaf.op == "input" and leaf.name == name), None
        )
        return old is None or self.fusion.may_overwrite(group, root, old)

    def _updates(self, node: Node) -> bool:
        return node in self.claims and self.claims[node].role == "update"

    def _stage(self, group: Group, name: str) -> Stage:
        kept = [n for n in group.nodes if n in self.claims or n in self.read_elsewhere]
        roots = tuple(Root(node, self._place(node)) for node in kept)
        tile = tile_of(group.contract) if group.contract is not None else None
        stage = Stage(
            name=name,
            section=group.section,
            extents=group.extents,
            reduced=group.reduced,
            nodes=tuple(sorted(group.nodes, key=self.order.__getitem__)),
            roots=roots,
            contract=group.contract,
            tile=tile,
        )
        if tile is not None and group.contract is not None:
            stage = self._with_scratch(stage, group.contract, tile)
        if group.nodes[0].op == "argsort":  # merges from one to the other and back
            name = f"{name}_places"
            self.buffers[name] = Buffer(name, group.nodes[0].type, "arena", 0)
            stage = replace(stage, scratch=name)
        work = stage.flops or sum(root.node.type.size for root in stage.roots)
        stage = replace(stage, parallel=not stage.on_host and work >= _PARALLEL_FLOPS)
        return self._with_blocks(stage) if OPS[stage.nodes[0].op].kind == "attention" else stage

    def _with_blocks(self, stage: Stage) -> Stage:
        blocking = blocking_of(stage.nodes[0], stage.parallel)
        name = f"{stage.name}_blocks"
        kind = Type(
            accumulator(stage.nodes[0].args[0].type), (blocking.workers, blocking.worker_size)
        )
        self.buffers[name] = Buffer(name, kind, "arena", 0)
        return replace(stage, blocking=blocking, scratch=name)

    def _with_scratch(self, stage: Stage, product: Node, tile: Tile) -> Stage:
        """Memory for partial sums and for copies of the operands, as its tile needs it."""

        def scratch(name: str, shape: tuple[int, ...]) -> str:
            name = f"{stage.name}_{name}"
            self.buffers[name] = Buffer(name, Type(product.type.dtype, shape), "arena", 0)
            return name

        if tile.form == "streamed":
            sums = scratch("sums", (tile.blocks, *product.type.shape))
            stage = replace(stage, scratch=sums)
        elif tile.blocks > 1 or tile.cut:
            stage = replace(stage, scratch=scratch("sums", product.type.shape))
        if tile.form == "packed":
            n = product.type.shape[-1]
            depth = tile.k_block * math.prod(product.args[1].type.shape[tile.cut + 1 : -1])
            blocks = -(-n // tile.n_block)
            if not tile.stored:
                stage = replace(stage, panels=scratch("panels", (blocks, depth, tile.n_copied)))
            if tile.pack_left:
                stage = replace(stage, rows=scratch("rows", (blocks, depth, tile.m_block)))
        return stage

    def _place(self, node: Node) -> str:
        if node in self.places:
            return self.places[node]
        claim = self.claims.get(node)
        if claim is None:
            name = f"v{len(self.places)}"
            self.buffers[name] = Buffer(name, node.type, "arena", 0)
        elif claim.role == "update":
            name = claim.name
        elif claim.role == "gradient":
            name = f"{claim.name}__grad"
            self.buffers[name] = Buffer(name, node.type, "memory", self.slots.index(GRADIENTS))
            self.outputs[name] = name
        else:
            name = claim.name
            self._slot_buffer(name, node.type, "output")
            self.outputs[name] = name
        self.places[node] = name
        return name

    def _stage_reads(self, stage: Stage) -> set[str]:
        """Buffers that a stage reads; asked when all stages have their places."""
        if stage.nodes not in self.known_reads:
            leaves = {leaf for node in stage.nodes for leaf in self.fusion.leaves_below(node)}
            outside = leaves - set(stage.nodes)
            found = {self.places[leaf] for leaf in outside if leaf in self.places}
            self.known_reads[stage.nodes] = found
        return self.known_reads[stage.nodes]

    def _plan_arena(
        self,
        stages: dict[Section, tuple[Stage, ...]],
        fused: Fused,
        sweep: Sweep | None,
    ) -> Plan:
        arena = {n: b.bytes for n, b in self.buffers.items() if b.space == "arena"}
        result = plan(lives(arena, stages, fused.stages, fused.regrad, sweep, self._stage_reads))
        for name, offset in result.offsets.items():
            self.buffers[name] = replace(self.buffers[name], offset=offset)
        return result


def _made_late(groups: list[Group]) -> list[Group]:
    """What the backward pass makes of the forward pass's values alone comes right before its first
    reader: until then it would take up memory for nothing.
    """
    here = set(groups)
    place: dict[Group, float] = {group: n for n, group in enumerate(groups)}
    first: dict[Group, float] = {}
    for group in groups:
        for other in group.after & here:
            first.setdefault(other, place[group])
    for group, at in first.items():
        if group.section == "BCKWD" and not group.after & here:
            place[group] = at - 0.5
    return sorted(groups, key=place.__getitem__)


def _topological(groups: Iterable[Group], waits: dict[Group, set[Group]]) -> list[Group]:
    """Each as early in the given order as what it waits for allows; without those that wait for
    each other.
    """
    given = list(groups)
    left = {group: len(waits[group]) for group in given}
    place = {group: n for n, group in enumerate(given)}
    readers: dict[Group, list[Group]] = {group: [] for group in given}
    for group in given:
        for other in waits[group]:
            readers[other].append(group)
    ready = [place[group] for group in given if not left[group]]
    done: list[Group] = []
    while ready:
        group = given[heappop(ready)]
        done.append(group)
        for reader in readers[group]:
            left[reader] -= 1
            if not left[reader]:
                heappush(ready, place[reader])
    return done
