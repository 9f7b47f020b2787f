"""The update as the epilogue of its gradient: in a whole step, a gradient that nobody reads is
never written.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from batucada.ir.access import VIEWS, Position, broadcast_index, nontrivial, through_view
from batucada.ir.graph import Node, Section
from batucada.mapping.program import Stage, canonical
from batucada.ops import CLOSED, OPS


@dataclass(frozen=True, slots=True)
class Fused:
    """`stages` do what BCKWD and OPT do; `regrad` are the BCKWD stages whose gradients they do
    not store, and the padded copies that these read.
    """

    stages: tuple[Stage, ...]
    regrad: tuple[Stage, ...]


def fuse_updates(
    sections: dict[Section, tuple[Stage, ...]],
    gradients: Container[str],
    reads: Callable[[Stage], set[str]],
) -> Fused:
    """Join each OPT stage to the BCKWD stage that makes its gradient, where they meet point by
    point.  `gradients` are the buffers of gradients, `reads` the buffers that a stage reads.
    """
    if sections["GRADNORM"] or not sections["OPT"]:
        return Fused((), ())
    return _Fusion(sections["BCKWD"], sections["OPT"], gradients, reads).fused()


class _Fusion:
    def __init__(
        self,
        backward: tuple[Stage, ...],
        updates: tuple[Stage, ...],
        gradients: Container[str],
        reads: Callable[[Stage], set[str]],
    ) -> None:
        self.backward = backward
        self.updates = updates
        self.gradients = gradients
        self.reads = reads
        self.updated = {root.buffer for stage in updates for root in stage.roots}
        self.makers: dict[str, list[Stage]] = {}  # a buffer -> what writes it going backward
        self.readers: dict[str, list[Stage]] = {}
        for stage in backward:
            for buffer in _writes(stage):
                self.makers.setdefault(buffer, []).append(stage)
            for buffer in reads(stage):
                self.readers.setdefault(buffer, []).append(stage)

    def fused(self) -> Fused:
        joined: dict[str, list[Stage]] = {}
        early: list[Stage] = []  # step counts and bias corrections: the fused updates read them
        late: list[Stage] = []
        written: set[str] = set()  # by those that are joined or late
        read: dict[str, list[Stage]] = {}
        for update in self.updates:
            makers = self._makers(update)
            beside = joined.get(makers[0].name, []) if len(makers) == 1 else []
            readers = [s for buffer in _writes(update) for s in read.get(buffer, ())]
            waits = bool(written & self.reads(update)) or any(s not in beside for s in readers)
            if not makers and not waits:
                early.append(update)
                continue
            if len(makers) == 1 and not waits and self._may_join(makers[0], update):
                joined.setdefault(makers[0].name, []).append(update)
            else:
                late.append(update)
            written |= _writes(update)
            for buffer in self.reads(update):
                read.setdefault(buffer, []).append(update)
        makers = [s for s in self.backward if s.name in joined]
        padded = self._padded_for(makers)
        plain = [s for s in self.backward if s.name not in joined and s not in padded]
        still_read = {buffer for stage in late for buffer in self.reads(stage)}
        fused, regrad = list[Stage](), list[Stage]()
        for maker in makers:
            needs = [s for s in padded if _writes(s) & self.reads(maker) and s not in regrad]
            fused += [*needs, _join(maker, joined[maker.name], still_read)]
            regrad += [*needs, maker]
        return Fused((*plain, *early, *fused, *late), tuple(regrad))

    def _padded_for(self, makers: list[Stage]) -> list[Stage]:
        """Padded copies that nothing but these read: made where they do, they need not stay."""
        others = [s for s in (*self.backward, *self.updates) if s not in makers]
        taken = {buffer for stage in others for buffer in self.reads(stage)}
        needed = {buffer for stage in makers for buffer in self.reads(stage)} - taken
        return [
            s
            for s in self.backward
            if s.nodes[0].op == "pad" and _writes(s) <= needed and not self.reads(s) & self.updated
        ]

    def _makers(self, update: Stage) -> list[Stage]:
        found = (s for buffer in self.reads(update) for s in self.makers.get(buffer, ()))
        return list({stage.name: stage for stage in found}.values())

    def _may_join(self, maker: Stage, update: Stage) -> bool:
        if update.reduced or update.contract is not None:
            return False
        if any(buffer not in self.gradients for buffer in _writes(maker)):
            return False  # it makes something besides gradients
        readers = (s for buffer in _writes(maker) for s in self.readers.get(buffer, ()))
        if any(stage is not maker for stage in readers):
            return False  # the rest of the backward pass waits for the gradient
        if self.reads(maker) & self.updated:
            return False  # the gradient could not be computed again after the update
        if any(OPS[n.op].kind in CLOSED for n in (*maker.nodes, *update.nodes)):
            return False
        return _meet_point_by_point(maker, update, self.updated)


def _meet_point_by_point(maker: Stage, update: Stage, updated: Container[str]) -> bool:
    """The update of an element reads the gradient of that element, and of no other; so with what
    is `updated`.
    """

    def point(node: Node) -> Position | None:
        return canonical(node.type.shape, maker.extents, maker.reduced)

    gradients = {root.node for root in maker.roots}
    todo = [(root.node, point(root.node)) for root in update.roots]
    seen: set[tuple[Node, Position | None]] = set()
    while todo:
        node, at = todo.pop()
        changes = node.op == "input" and node.name in updated and nontrivial(node.type.shape)
        if at is None or ((node in gradients or changes) and at != point(node)):
            return False
        if node in gradients or node.op == "input" or (node, at) in seen:
            continue
        seen.add((node, at))
        if node.op in VIEWS:
            todo.append((node.args[0], through_view(node, at)))
        elif OPS[node.op].kind == "lookup":
            todo.append((node.args[0], None))
        elif OPS[node.op].kind == "map":
            todo += [(arg, broadcast_index(arg.type.shape, at)) for arg in node.args]
    return True


def _writes(stage: Stage) -> set[str]:
    return {root.buffer for root in stage.roots}


def _join(maker: Stage, updates: list[Stage], still_read: set[str]) -> Stage:
    roots = [root for root in maker.roots if root.buffer in still_read]
    roots += [root for update in updates for root in update.roots]
    nodes = dict.fromkeys((*maker.nodes, *(n for u in updates for n in u.nodes)))
    return replace(
        maker, name=f"{maker.name}_update", section="OPT", nodes=tuple(nodes), roots=tuple(roots)
    )
