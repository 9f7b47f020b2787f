"""Gradients that replicas reduce: one behind another in memory, in few large buckets.

They lie in the order in which the backward pass is done with them, so that a bucket can be reduced
while the rest of the backward pass runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from batucada.ir.graph import Graph, Node, Output, graph_of
from batucada.ir.types import DType
from batucada.ir.verify import VerifyError
from batucada.mapping.program import Bucket, Buffer, Stage
from batucada.ops import make, origin, with_args


def base_of(node: Node) -> Node:
    """A reshape of a computed value lies where the value lies."""
    while node.op == "reshape" and node.args[0].op not in ("input", "constant", "iota"):
        node = node.args[0]
    return node


def lying_in(out: Output) -> Node:
    """The value whose memory an output is: a reduced gradient lies where it was before."""
    node = out.node
    if out.role == "gradient" and node.op == "all_reduce":
        node = node.args[0]
    return base_of(node)


def own_gradients(graph: Graph) -> Graph:
    """Each gradient that is reduced is a value of its own, made by the backward pass: nothing else
    may change when it is reduced in place.
    """
    taken = {lying_in(out) for out in graph.outputs if out.node.op != "all_reduce"}
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in graph.nodes:
        new[node] = with_args(node, [new[arg] for arg in node.args])
        if node.op != "all_reduce":
            continue
        base = base_of(node.args[0])
        if base in taken or not base.args or base.section != "BCKWD":
            with origin(base.src, "BCKWD"):
                new[node] = with_args(node, [make("copy", new[node.args[0]])])
        taken.add(base)
    outputs = [Output(out.name, out.role, new[out.node]) for out in graph.outputs]
    return graph_of(graph.name, graph.inputs, outputs)


def reduced_gradients(graph: Graph) -> frozenset[str]:
    """The parameters whose gradients replicas reduce."""
    read = {str(node.attr("of")) for node in graph.nodes if node.op == "all_reduce"}
    found = {o.name for o in graph.of_role("gradient") if o.node.op == "all_reduce"}
    if read != found:
        raise VerifyError(f"reduced, and no gradient of the program: {sorted(read ^ found)}")
    return frozenset(found)


def find_buckets(
    backward: Sequence[Stage],
    gradients: Iterable[str],
    buffers: Mapping[str, Buffer],
    reads: Callable[[Stage], set[str]],
    largest_bytes: int,
) -> tuple[Bucket, ...]:
    """Buckets of the buffers `gradients`, each of one dtype, in the order in which they are full.

    A bucket is full when the stages that write or read any of it have run.
    """
    done = dict.fromkeys(gradients, 0)
    for number, stage in enumerate(backward, 1):
        for name in {*(root.buffer for root in stage.roots), *reads(stage)} & done.keys():
            done[name] = number
    filling: dict[DType, list[str]] = {}
    full: list[Bucket] = []
    for name in sorted(done, key=done.__getitem__):
        dtype = buffers[name].type.dtype
        names = filling.setdefault(dtype, [])
        names.append(name)
        if sum(buffers[n].bytes for n in names) >= largest_bytes:
            full.append(Bucket(dtype, tuple(filling.pop(dtype)), done[name]))
    rest = [Bucket(dtype, tuple(names), done[names[-1]]) for dtype, names in filling.items()]
    return tuple(sorted([*full, *rest], key=lambda bucket: bucket.stages))


def in_order_of_buckets(
    updates: Sequence[Stage], buckets: Sequence[Bucket], reads: Callable[[Stage], set[str]]
) -> tuple[tuple[Stage, ...], tuple[Bucket, ...]]:
    """OPT, first what needs the first bucket alone, and the buckets with the number of `updates`
    that need no more than what is reduced then.

    A stage stays behind those before it that write what it reads, or read or write what it writes.
    """
    made = {name: number for number, b in enumerate(buckets) for name in b.buffers}
    written, used = dict[str, int](), dict[str, int]()
    waits: list[int] = []
    for stage in updates:
        taken, given = reads(stage), {root.buffer for root in stage.roots}
        found = [made.get(name, 0) for name in taken]
        found += [written.get(name, 0) for name in taken] + [used.get(name, 0) for name in given]
        waits.append(max(found, default=0))
        written |= dict.fromkeys(given, waits[-1])
        used |= {name: max(used.get(name, 0), waits[-1]) for name in taken | given}
    ordered = sorted(zip(waits, updates, strict=True), key=lambda pair: pair[0])
    counts = [sum(wait <= number for wait in waits) for number in range(len(buckets))]
    counted = [replace(b, updates=count) for b, count in zip(buckets, counts, strict=True)]
    return tuple(stage for _, stage in ordered), tuple(counted)
