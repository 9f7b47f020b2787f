"""Values that are cheaper to compute again than to store.

A large value made by a few additions or products from others that stay in memory anyway is not
kept for the backward pass: the backward pass makes it again, and so with a padded copy.  And where
a few of its elements are looked up, those are made from the few of its arguments.  So a language
model's logits are the one tensor over the vocabulary that its loss stores: log-softmax of them is
never written.
"""

from __future__ import annotations

from dataclasses import replace

from batucada.ir.access import below_views
from batucada.ir.graph import Graph, Node, Section
from batucada.ops import OPS, like, make, with_args
from batucada.ops.view import expand, reshape
from batucada.passes.rewrite import substitute

_LARGE = 4096  # elements from which a value is worth it
_FLOPS = 4  # for an element of it, at most
_MUCH = 1.5  # a padded copy so many times larger is made again
_SMALL = 16  # a value of so many times fewer elements may be kept


def recompute(graph: Graph) -> Graph:
    """Look-ups first: what only they needed is then left to the backward pass."""
    return _Recompute(_LookUps(graph).graph()).graph()


class _Chains:
    """The chains of cheap maps in the forward pass, down to what is kept."""

    def __init__(self, source: Graph) -> None:
        self.source = source
        self.users = source.users()
        self.outputs = {out.node for out in source.outputs}
        self.overwritten = source.changed_in_forward()

    def chain(self, root: Node) -> set[Node] | None:
        """The maps and views to be made again for `root`; None where that is not worth it."""
        padded = root.op == "pad" and root.section == "FWD"
        if root.type.size < _LARGE or root in self.outputs:
            return None
        if padded and self._is_better_kept(root.args[0], root):
            return {root}
        if not padded and not self._is_cheap(root):
            return None
        found: set[Node] = {root}
        if not all(self._reaches(arg, root, found) for arg in root.args):
            return None
        maps = [OPS[node.op] for node in found if OPS[node.op].kind == "map"]
        return found if sum(op.flops_per_element for op in maps) <= _FLOPS else None

    def _reaches(self, node: Node, root: Node, found: set[Node]) -> bool:
        """Adds to `found` what must be made again to have `node`; False where it cannot be had."""
        if node in found:
            return True
        if node.op == "input":
            return node.name not in self.overwritten
        if node.type.size * _SMALL <= root.type.size:
            return True
        if self._is_cheap(node) and len(found) < 4 * _FLOPS:
            below = {*found, node}
            if all(self._reaches(arg, root, below) for arg in node.args):
                found |= below
                return True
        return self._is_kept(node)

    def _is_cheap(self, node: Node) -> bool:
        if node.op in ("input", "check_index") or node.section != "FWD":
            return False
        kind = OPS[node.op].kind
        return kind in ("view", "create") or (kind == "map" and OPS[node.op].flops_per_element <= 1)

    def _is_better_kept(self, node: Node, padded: Node) -> bool:
        """In memory anyway, or much smaller than its padded copy, which is kept otherwise."""
        source = below_views(node)
        if source.op == "input":
            return source.name not in self.overwritten
        much_smaller = padded.type.size >= _MUCH * node.type.size
        return much_smaller or (self._is_read_later(node) and not self.chain(node))

    def _is_read_later(self, node: Node) -> bool:
        """By the backward pass, perhaps through views that the forward pass has, too."""
        return any(
            user.section != "FWD" or (_is_view(user) and self._is_read_later(user))
            for user in self.users[node]
        )

    def _is_kept(self, node: Node) -> bool:
        """In memory up to the backward pass, whoever else reads it."""
        if OPS[node.op].kind == "contract":  # a reduction of it is a stage of its own
            return any(OPS[user.op].kind == "reduce" for user in self.users[node])
        return any(user.section != "FWD" for user in self.users[node])


class _LookUps(_Chains):
    """take(f(x, y), i) -> f(take(x, i), take(y, i)) for a chain"""

    def graph(self) -> Graph:
        new: dict[Node, Node] = {node: node for node in self.source.inputs}
        for node in self.source.nodes:
            moved = with_args(node, [new[arg] for arg in node.args])
            chain = self.chain(node.args[0]) if node.op == "take" else None
            if chain and node.type.size * _SMALL <= node.args[0].type.size:
                with like(node):
                    moved = self._through(moved, node.args[0], chain, new)
            new[node] = moved
        return substitute(self.source, new)

    def _through(self, take: Node, x: Node, chain: set[Node], new: dict[Node, Node]) -> Node:
        """`take` of x in place of its own table"""
        if x not in chain or OPS[x.op].kind != "map":
            return with_args(take, [new[x], *take.args[1:]])
        return make(
            x.op, *(self._argument(take, x, a, chain, new) for a in x.args), **dict(x.attrs)
        )

    def _argument(
        self, take: Node, x: Node, arg: Node, chain: set[Node], new: dict[Node, Node]
    ) -> Node:
        """Along a dimension that it is spread over, every place has the same."""
        rank, dims = len(x.type.shape), take.integers("dims")
        shape = (*[1] * (rank - len(arg.type.shape)), *arg.type.shape)
        if all(shape[d] == 1 for d in dims):
            return reshape(new[arg], shape)
        if shape == x.type.shape == arg.type.shape:
            return self._through(take, arg, chain, new)
        return make(
            "take", expand(reshape(new[arg], shape), x.type.shape), *take.args[1:], dims=dims
        )


class _Recompute(_Chains):
    """What later sections read of the forward pass is made again there, if it is a chain."""

    def __init__(self, source: Graph) -> None:
        super().__init__(source)
        self.again: dict[tuple[Node, Section], Node] = {}

    def graph(self) -> Graph:
        new: dict[Node, Node] = {node: node for node in self.source.inputs}
        for node in self.source.nodes:
            args = [
                new[arg] if node.section == "FWD" else self._for(arg, node.section, new)
                for arg in node.args
            ]
            new[node] = with_args(node, args)
        return substitute(self.source, new)

    def _for(self, node: Node, section: Section, new: dict[Node, Node]) -> Node:
        chain = self.chain(node) if node.op != "input" else None
        if chain:
            return self._made_again(node, section, chain, new)
        if _is_view(node) and node.section == "FWD":
            below = self._for(node.args[0], section, new)
            if below is not new[node.args[0]]:
                return self.again.setdefault(
                    (node, section), replace(node, args=(below,), section=section)
                )
        return new[node]

    def _made_again(
        self, node: Node, section: Section, chain: set[Node], new: dict[Node, Node]
    ) -> Node:
        if node not in chain:
            return new[node]
        known = self.again.get((node, section))
        if known is None:
            args = [self._made_again(arg, section, chain, new) for arg in node.args]
            known = replace(node, args=tuple(args), section=section)
            self.again[node, section] = known
        return known


def _is_view(node: Node) -> bool:
    return node.op != "input" and OPS[node.op].kind == "view"
