"""Which operations of a section become one stage.

Cheap maps of values that already lie in memory are computed wherever they are needed.  Every other
map or reduction joins a stage that computes one of its arguments, or one over the same domain, if
each value it reads there is the one at its own point of the domain; a product starts a stage, and
maps join it as epilogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batucada.ir.access import Position, broadcast_index, nontrivial, through_view
from batucada.ir.graph import Graph, Node, Section
from batucada.ir.loops import Index
from batucada.mapping.program import canonical
from batucada.mapping.tiling import needs_packing, scattered_images
from batucada.ops import CLOSED, OPS, STANDALONE, call_key
from batucada.ops.elementwise import widens

_INLINE_FLOPS = (
    6  # above this a value is computed once and stored rather than recomputed by each reader
)
_LONGEST = 64  # operations of a stage: values go down to their arguments one in another
_NEIGHBOURS = 8  # how far back a stage over the same domain is looked for


class Group:
    """A stage in the making."""

    def __init__(
        self, number: int, extents: tuple[int, ...], reduced: frozenset[int], section: Section
    ) -> None:
        self.extents = extents
        self.reduced = reduced
        self.section: Section = section
        self.nodes: list[Node] = []
        self.contract: Node | None = None
        self.after: set[Group] = set()  # groups whose values it reads, directly
        self.readers: list[Group] = []  # groups that read its values, directly
        self.leaves: set[Node] = set()  # the values and inputs it reads
        self.number = number
        self.below = 1 << number  # a bit for itself and for each group that it waits for

    def point(self, node: Node) -> Position | None:
        return canonical(node.type.shape, self.extents, self.reduced)

    def wait_for(self, source: Group) -> None:
        """It, and what waits for it, waits for `source` and all that it waits for."""
        todo = [self]
        while todo:
            group = todo.pop()
            below = group.below | source.below
            if below != group.below:
                group.below = below
                todo += group.readers

    def depends_on(self, other: Group) -> bool:
        return bool(self.below >> other.number & 1)


class Fusion:
    """The stages of a graph: `groups` in the order of their first operation, `group_of` for what
    they compute.
    """

    def __init__(self, graph: Graph, stored: Iterable[Node], alone: Iterable[Node] = ()) -> None:
        self.graph = graph
        self.alone = set(alone)  # nodes that are stages by themselves, whatever they are
        self.stored = set(stored)  # nodes that must lie in memory: outputs
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self.users = graph.users()
        self._calls: dict[tuple[object, ...], Group] = {}  # a call -> the group of its results
        self._must_store()
        for node in graph.nodes:
            if self._needs_group(node):
                self._place(node)

    def _must_store(self) -> None:
        """Operands of products, what is looked up, and what is read through a reshape that mixes
        dimensions, lie in memory.
        """
        changes_buffers = bool(self.graph.changed_in_forward())
        for node in self.graph.nodes:
            if node.op == "check_index" and changes_buffers:
                self.stored.add(node)  # as a stage of its own it can run before any buffer changes
            if OPS[node.op].kind == "contract":
                a, b = node.args
                self.stored.add(scattered_images(node) or _storage_root(a))
                self.stored.add(b if needs_packing(node) else _storage_root(b))
            elif OPS[node.op].kind == "lookup":
                self.stored.add(_storage_root(node.args[0]))
            elif OPS[node.op].kind in ("index", "attention") and node.op not in ("put", "scan"):
                self.stored.update(_storage_root(arg) for arg in node.args)
            elif OPS[node.op].kind == "host":
                self.stored.update(arg for arg in node.args if arg.op != "input")
            elif node.op == "reshape" and not _affine(node):
                self.stored.add(node.args[0])

    def _needs_group(self, node: Node) -> bool:
        kind = OPS[node.op].kind
        if kind == "reduce" or kind in STANDALONE or node in self.stored:
            return True
        return kind in ("map", "lookup") and not self._inline(node)

    def _inline(self, node: Node) -> bool:
        """Cheap, and made of what lies in memory before this section or is inlined itself."""
        if widens(node) and self._only_multiplied(node):
            return True
        cost = 0
        for inner in self.inlined_below([node]):
            pointwise = OPS[inner.op].kind in ("map", "lookup")
            cost += OPS[inner.op].flops_per_element if pointwise else 0
        in_section = any(
            leaf in self.group_of and leaf.section == node.section for leaf in self.leaves(node)
        )
        return cost <= _INLINE_FLOPS and not in_section

    def _only_multiplied(self, node: Node) -> bool:
        """All that reads it, through views, are products, which read it element by element."""
        todo = list(self.users[node])
        while todo:
            user = todo.pop()
            if OPS[user.op].kind == "view":
                todo += self.users[user]
            elif OPS[user.op].kind != "contract" or needs_packing(user):
                return False
        return node not in self.stored

    def inlined_below(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """The nodes themselves and everything below that no group computes."""
        seen: set[Node] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if node.op == "input":
                continue
            yield node
            todo.extend(arg for arg in node.args if arg not in self.group_of)

    def leaves(self, node: Node) -> set[Node]:
        """What a node reads that groups compute or that is an input, through views and inlined
        maps.
        """
        found: set[Node] = set()
        for inner in self.inlined_below([node]):
            found.update(arg for arg in inner.args if arg in self.group_of or arg.op == "input")
        return found

    def _place(self, node: Node) -> None:
        kind = OPS[node.op].kind
        alone = kind in STANDALONE or node.op == "check_index" or node in self.alone
        group = None if alone else self._group_to_join(node)
        key = call_key(node)
        if key is not None:
            group = self._calls.get(key)
        if group is None:
            group = self._new_group(node)
        if key is not None:
            self._calls[key] = group
        group.nodes.append(node)
        self.group_of[node] = group
        group.leaves |= self.leaves_below(node)
        for leaf in self.leaves_below(node):
            source = self.group_of.get(leaf)
            if source is not None and source is not group and source not in group.after:
                group.after.add(source)
                source.readers.append(group)
                group.wait_for(source)

    def leaves_below(self, node: Node) -> set[Node]:
        found: set[Node] = set()
        for arg in node.args:
            found |= {arg} if arg in self.group_of or arg.op == "input" else self.leaves(arg)
        return found

    def _new_group(self, node: Node) -> Group:
        extents, reduced = domain(node)
        group = Group(len(self.groups), extents, reduced, node.section)
        group.contract = node if OPS[node.op].kind == "contract" else None
        self.groups.append(group)
        return group

    def _group_to_join(self, node: Node) -> Group | None:
        sources = {self.group_of[leaf] for leaf in self.leaves_below(node) if leaf in self.group_of}
        near = sorted(sources, key=lambda g: g.number, reverse=True)
        alike = [g for g in self._recent(node) if g not in sources and g.contract is None]
        near.sort(key=lambda g: g.contract is None)  # an epilogue first
        for group in [*near, *alike]:
            if group.section == node.section and self._may_join(node, group, sources):
                group.reduced = group.reduced or domain(node)[1]
                return group
        return None

    def _recent(self, node: Node) -> list[Group]:
        """The last groups that may be over the same domain.  Updates of different parameters stay
        apart, so that each can join the stage of its gradient.
        """
        recent = self.groups[: -_NEIGHBOURS - 1 : -1]
        if node.section != "OPT":
            return recent
        read = {leaf for leaf in self.leaves_below(node) if nontrivial(leaf.type.shape)}
        return [group for group in recent if group.leaves & read]

    def _may_join(self, node: Node, group: Group, sources: set[Group]) -> bool:
        if len(group.nodes) >= _LONGEST:
            return False
        if any(
            OPS[n.op].kind in CLOSED or n.op == "check_index" or n in self.alone
            for n in group.nodes
        ):
            return False
        extents, reduced = domain(node)
        if OPS[node.op].kind == "reduce":
            if (
                group.contract is not None
                or extents != group.extents
                or group.reduced not in (frozenset(), reduced)
            ):
                return False
            if not reduced and group.reduced:
                return False
        elif group.point(node) is None:
            return False
        if any(source is not group and source.depends_on(group) for source in sources):
            return False
        return self._reads_own_point(node, group, reduced or group.reduced)

    def _reads_own_point(self, node: Node, group: Group, reduced: frozenset[int]) -> bool:
        """Every value of the group that `node` reads is read at the point where the group
        computes it.
        """
        start = canonical(_domain_shape(node), group.extents, reduced)
        if start is None:
            return False
        todo = _arguments(node, start)
        while todo:
            value, at = todo.pop()
            if at is None:
                if any(self.group_of.get(leaf) is group for leaf in {value, *self.leaves(value)}):
                    return False
            elif self.group_of.get(value) is group:
                if canonical(value.type.shape, group.extents, reduced) != at:
                    return False
            elif value not in self.group_of and value.op != "input":
                todo += _arguments(value, at)
        return True

    def may_overwrite(self, group: Group, root: Node, old: Node) -> bool:
        """`root` may be written where `old`, an input, lies: the group reads no element of it that
        another point, or another pass over this one, has written.
        """
        own = group.point(old)
        has_passes = any(OPS[n.op].kind == "reduce" for n in group.nodes)
        if has_passes and nontrivial(root.type.shape) == group.extents:
            return old not in group.leaves
        todo = [point for node in group.nodes for point in self._first_reads(node, group)]
        seen: set[tuple[Node, Position | None]] = set()
        while todo:
            value, at = todo.pop()
            if (value, at) in seen:
                continue
            seen.add((value, at))
            if value is old and at != own and nontrivial(old.type.shape):
                return False
            if value not in self.group_of and value.op != "input":
                todo += _arguments(value, at) if at is not None else _anywhere(value)
        return True

    def _first_reads(self, node: Node, group: Group) -> list[tuple[Node, Position | None]]:
        start = canonical(_domain_shape(node), group.extents, group.reduced)
        if start is None or OPS[node.op].kind in CLOSED or OPS[node.op].kind == "contract":
            return _anywhere(node)
        return _arguments(node, start)


def _anywhere(node: Node) -> list[tuple[Node, Position | None]]:
    return [(arg, None) for arg in node.args]


def _arguments(node: Node, at: Position) -> list[tuple[Node, Position | None]]:
    """What a node reads for its element at `at`, and where; None where that is no affine index."""
    kind = OPS[node.op].kind
    if kind == "view":
        return [(node.args[0], through_view(node, at))]
    points = [(arg, broadcast_index(arg.type.shape, at)) for arg in node.args]
    return [(node.args[0], None), *points[1:]] if kind == "lookup" else [*points]


def domain(node: Node) -> tuple[tuple[int, ...], frozenset[int]]:
    """The nontrivial extents a node iterates over, and which of them it reduces."""
    if OPS[node.op].kind != "reduce":
        return nontrivial(node.type.shape), frozenset()
    shape, dims = node.args[0].type.shape, node.integers("dims")
    positions = [d for d, extent in enumerate(shape) if extent != 1]
    return nontrivial(shape), frozenset(i for i, d in enumerate(positions) if d in dims)


def _domain_shape(node: Node) -> tuple[int, ...]:
    return node.args[0].type.shape if OPS[node.op].kind == "reduce" else node.type.shape


def _storage_root(node: Node) -> Node:
    """The node whose memory an operand of a product views; half precision is widened where it is
    read.
    """
    while node.op != "input" and (OPS[node.op].kind == "view" or widens(node)):
        if node.op == "reshape" and not _affine(node):
            return node.args[0]
        node = node.args[0]
    return node


def _affine(view: Node) -> bool:
    at = [Index.of(f"d{i}") for i in range(len(view.type.shape))]
    return through_view(view, at) is not None
