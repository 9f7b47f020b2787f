"""How attention is cut into blocks that stay in the caches, and the scratch that takes."""

from __future__ import annotations

from batucada.ir.graph import Node
from batucada.mapping.program import Blocking
from batucada.mapping.tiling import LANES

_ROWS = 64  # queries of a block, at most: the scores of a block and its operands fit the caches
_KEYS = 128  # keys of a block, at most
_WORKERS = 16  # at most so many threads share a stage, each with a scratch


def blocking_of(node: Node, parallel: bool) -> Blocking:
    backward = node.op == "attention_backward"
    q, k, v = (arg.type.shape for arg in node.args[backward : 3 + backward])
    rows, keys = _block(q[2], _ROWS, 1), _block(k[2], _KEYS, LANES)
    depth, width = q[3], v[3]
    scores = ("scores", rows * keys)
    if backward:
        pairs, queries = k[0] * k[1], q[1] // k[1] * _whole(q[2], rows)
        areas = (
            ("keys_across", depth * keys), ("values_across", width * keys),
            ("keys", keys * _whole(depth, LANES)),
            ("q", rows * _whole(depth, LANES)), ("grad", rows * _whole(width, LANES)),
            scores, ("products", rows * keys), ("lse", rows), ("dots", rows),
            ("dq", queries * _whole(depth, LANES)),
            ("dk", keys * _whole(depth, LANES)), ("dv", keys * _whole(width, LANES)),
        )  # fmt: skip
    else:
        pairs, queries = q[0] * q[1], _whole(q[2], rows)
        areas = (
            ("keys_across", depth * keys), ("values", keys * _whole(width, LANES)),
            ("q", rows * _whole(depth, LANES)), scores,
            ("out", queries * _whole(width, LANES)), ("top", queries), ("total", queries),
        )  # fmt: skip
    areas = tuple((name, _whole(size, 2 * LANES)) for name, size in areas)
    return Blocking(rows, keys, _workers(pairs) if parallel else 1, areas)


def _whole(size: int, step: int) -> int:
    return -(-size // step) * step


def _block(size: int, most: int, step: int) -> int:
    """An even cut of `size`, in whole steps."""
    return _whole(-(-size // -(-size // most)), step)


def _workers(pairs: int) -> int:
    """A divisor of the number of pairs, so that all have equal work."""
    found = max(d for d in range(1, min(pairs, _WORKERS) + 1) if pairs % d == 0)
    return found if found > 1 else pairs
