"""Update of this step and forward of the next in one sweep over a weight.

In a loop over known batches, a small batch spends its time reading and writing the weights.  Where
the first product of the forward pass reads an input and a weight, the weight's update can go on,
row by row, to the next step's product: the loop then passes over the weight once a step instead of
three times.
"""

from __future__ import annotations

from collections.abc import Container

from batucada.ir.graph import Node
from batucada.mapping.program import Stage, Sweep
from batucada.mapping.tiling import LANES

_SUMS = 6  # vectors of the next product's sums; as many of the gradient's factor stay in registers


def find_sweep(
    forward: tuple[Stage, ...], fused: tuple[Stage, ...], outputs: Container[str]
) -> Sweep | None:
    """The largest weight that can be swept, if any; `outputs` are the buffers of results."""
    found = [s for stage in forward for u in fused if (s := _match(stage, u, outputs)) is not None]
    return max(found, key=lambda s: s.update.flops, default=None)


def _match(forward: Stage, update: Stage, outputs: Container[str]) -> Sweep | None:
    if forward.contract is None or update.contract is None:
        return None
    x, weight = forward.contract.args
    shape = forward.contract.type.shape
    if x.op != "input" or x.role != "input" or weight.op != "input" or len(shape) != 2:
        return None
    if weight.name not in {root.buffer for root in update.roots}:
        return None
    transposed, _ = update.contract.args
    if transposed.op != "permute" or transposed.args[0] is not x:
        return None
    if shape[0] * -(-shape[1] // LANES) > _SUMS or not _only_reads(forward, x, weight):
        return None
    given = {x.name} | {root.buffer for root in forward.roots if root.buffer in outputs}
    return Sweep(forward, update, {name: f"{name}__next" for name in sorted(given)})


def _only_reads(stage: Stage, x: Node, weight: Node) -> bool:
    """Its epilogue reads nothing that another stage of the same step computes, nor a second
    batch input.
    """
    inside = set(stage.nodes)
    leaves = {arg for node in stage.nodes for arg in node.args} - inside - {x, weight}
    return all(_is_fixed(leaf) for leaf in leaves)


def _is_fixed(node: Node) -> bool:
    if node.op == "input":
        return node.role != "input"
    return node.op in ("constant", "iota") or (
        node.op in ("reshape", "expand", "permute") and _is_fixed(node.args[0])
    )
