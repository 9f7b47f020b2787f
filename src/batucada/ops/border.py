"""A border of zeros that lies nowhere, and what a product with one below its left operand computes:
which taps of a window meet which places.

A tap that meets an image at some places only is multiplied with what lies there and nothing else.
Along each dimension, taps that meet equally many places are one loop: in a kernel of three taps the
middle one, and the two beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batucada.ir.access import VIEWS, Position, through_view
from batucada.ir.graph import Node
from batucada.ir.loops import Index
from batucada.ir.types import Shape, Type
from batucada.ops.base import Op, define, make
from batucada.ops.window import cut, meeting


def _border(x: Type, low: Shape, high: Shape) -> Type:
    return Type(x.dtype, tuple(a + e + b for e, a, b in zip(x.shape, low, high, strict=True)))


def _border_ref(x: np.ndarray, low: Shape, high: Shape) -> np.ndarray:
    return np.pad(x, list(zip(low, high, strict=True)))


define(Op("border", "view", _border, _border_ref))
"""Zeros around `x`.  It is read by products alone, as windows on the left, [images, *places, *taps,
channels] or [*taps, channels, images, *places]: their kernels leave out the terms that would read
the zeros.
"""


def border(x: Node, low: Sequence[int], high: Sequence[int]) -> Node:
    """As `pad` with zeros."""
    x, around = cut(x, low, high)
    return make("border", x, **around) if around else x


@dataclass(frozen=True, slots=True)
class Run:
    """`taps` taps of a dimension: `first`, and each `step` further.  The first meets `places`
    places from `start` on, each of the others as many from `shift` further on.
    """

    taps: int
    first: int
    step: int
    places: int
    start: int
    shift: int


def border_of(operand: Node) -> Node | None:
    """The border below the views of an operand."""
    while operand.op in VIEWS:
        if operand.op == "border":
            return operand
        operand = operand.args[0]
    return None


def sums_over_images(product: Node) -> bool:
    """It is the gradient of a weight: images and places are what it sums over, taps its rows."""
    _, (images, *_) = _at_border(product.args[0])
    return images != Index.of("d0")


def runs_of(product: Node) -> list[list[Run]]:
    """Of each dimension of the windows."""
    left, turned = product.args[0], sums_over_images(product)
    border, at = _at_border(left)
    space, low = border.args[0].type.shape[1:-1], border.integers("low")[1:-1]
    rank, found = len(space), []
    for i, (index, extent, before) in enumerate(zip(at[1:-1], space, low, strict=True)):
        place, tap = (rank + 2 + i, i) if turned else (1 + i, 1 + rank + i)
        factors = dict(index.terms)
        step, apart = factors.get(f"d{place}", 1), factors.get(f"d{tap}", 0)  # none of one place
        first, count = index.offset - before, left.type.shape[place]
        taps = range(left.type.shape[tap])
        found.append(_runs([meeting(first + apart * j, step, count, extent) for j in taps]))
    return found


def _at_border(left: Node) -> tuple[Node, Position]:
    """The border below the views of a left operand, and where the element at d0, d1, ... lies."""
    at = tuple(Index.of(f"d{i}") for i in range(len(left.type.shape)))
    while left.op != "border":
        below = through_view(left, at)
        assert below is not None
        left, at = left.args[0], below
    return left, at


def _runs(met: list[range]) -> list[Run]:
    """Taps of equally many places, those at equal distances together."""
    runs: list[Run] = []
    for size in sorted({len(places) for places in met}):
        alike = [j for j, places in enumerate(met) if len(places) == size]
        while alike:
            found = _evenly(alike, [met[j].start for j in alike])
            first, second = alike[0], alike[min(1, found - 1)]
            shift = met[second].start - met[first].start
            runs.append(Run(found, first, second - first, size, met[first].start, shift))
            alike = alike[found:]
    return runs


def _evenly(taps: list[int], starts: list[int]) -> int:
    """How many of them, from the first on, lie at equal distances, and what they meet, too."""
    count = min(2, len(taps))
    while count < len(taps) and all(
        values[count] - values[count - 1] == values[1] - values[0] for values in (taps, starts)
    ):
        count += 1
    return count
