"""The update as the epilogue of its gradient: in a whole step, a gradient that nobody reads is
never written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from batucada.ir.graph import Node, Section
from batucada.mapping.program import Root, Stage, canonical
from batucada.ops import OPS


@dataclass(frozen=True, slots=True)
class Fused:
    """`stages` do what BCKWD and OPT do; `regrad` are the BCKWD stages whose gradients they do
    not store.
    """

    stages: tuple[Stage, ...]
    regrad: tuple[Stage, ...]


def fuse_updates(
    sections: dict[Section, tuple[Stage, ...]],
    places: dict[Node, str],
    outputs: dict[str, str],
    reads: Callable[[Stage], set[str]],
) -> Fused:
    """Join each OPT stage to the BCKWD stage that makes its gradient, where they meet point by
    point.
    """
    if sections["GRADNORM"] or not sections["OPT"]:
        return Fused((), ())
    updated = {
        root.buffer
        for stage in sections["OPT"]
        for root in stage.roots
        if root.buffer not in outputs
    }
    joined: dict[str, list[Stage]] = {}
    rest: list[Stage] = []
    for update in sections["OPT"]:
        makers = [s for s in sections["BCKWD"] if {r.buffer for r in s.roots} & reads(update)]
        if len(makers) == 1 and _may_fuse(makers[0], update, updated, outputs, reads):
            joined.setdefault(makers[0].name, []).append(update)
        else:
            rest.append(update)
    # what does not read a gradient (step counts, bias corrections) comes first, what still reads
    # one comes last
    early = [
        s
        for s in rest
        if not any({r.buffer for r in b.roots} & reads(s) for b in sections["BCKWD"])
    ]
    late = [s for s in rest if s not in early]
    plain = [s for s in sections["BCKWD"] if s.name not in joined]
    makers = [s for s in sections["BCKWD"] if s.name in joined]
    fused = [_join(maker, joined[maker.name], places, late, reads) for maker in makers]
    return Fused((*plain, *early, *fused, *late), tuple(makers))


def _may_fuse(
    maker: Stage,
    update: Stage,
    updated: set[str],
    outputs: dict[str, str],
    reads: Callable[[Stage], set[str]],
) -> bool:
    if update.reduced or update.contract is not None:
        return False
    if any(root.buffer not in outputs for root in maker.roots):
        return False  # it makes something besides gradients that others wait for
    if reads(maker) & updated:
        return False  # the gradient could not be computed again after the update
    if any(OPS[node.op].kind == "index" for node in (*maker.nodes, *update.nodes)):
        return False
    return all(
        canonical(root.node.type.shape, maker.extents, maker.reduced) is not None
        for root in (*maker.roots, *update.roots)
    )


def _join(
    maker: Stage,
    updates: list[Stage],
    places: dict[Node, str],
    late: list[Stage],
    reads: Callable[[Stage], set[str]],
) -> Stage:
    still_read = {buffer for stage in late for buffer in reads(stage)}
    roots = [root for root in maker.roots if root.buffer in still_read]
    roots += [Root(root.node, root.buffer) for update in updates for root in update.roots]
    nodes = dict.fromkeys((*maker.nodes, *(n for u in updates for n in u.nodes)))
    return replace(
        maker, name=f"{maker.name}_update", section="OPT", nodes=tuple(nodes), roots=tuple(roots)
    )
