"""Convolutions, as products over windows: nothing is copied to form them.

Inside, tensors are channels-last: x [N, *spatial, C] and w [*kernel, C, O].  The permutations that
this leaves at the borders are for the passes to move away.  The adjoint with respect to x is a
convolution of the gradient: with steps between windows, one for each residue of the position modulo
the step, so that no product with a zero is made.  Around small images padding is a border: products
leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product as pairs

from batucada.ir.graph import Node
from batucada.ir.types import Type
from batucada.ops.base import TypeRuleError, make, translates
from batucada.ops.border import border
from batucada.ops.contract import contract
from batucada.ops.create import full
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import aten_slice, permute, reshape, unsqueeze
from batucada.ops.window import meeting, pad, places, window

_FEW_CHANNELS = 8  # below this, taps and channels are one dimension of a product
_IMAGES = 2  # from so many on, a tile of a product may be of images, at one place in each of them,
_CHANNELS = 16  # ... which wants so many, in and out
_SPARED = 0.125  # share of the products with padding from which on they are left out


@dataclass(frozen=True, slots=True)
class Geometry:
    """Of a convolution over `len(kernel)` dimensions; `padding` lies before the image, `behind`
    behind it.  Less than none cuts.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    behind: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def space(self) -> range:
        """The spatial dimensions of a channels-last tensor."""
        return range(1, self.rank + 1)

    def places(self, d: int, extent: int) -> int:
        """How many windows there are along dimension `d` of an image of `extent`."""
        padded = self.padding[d] + extent + self.behind[d]
        return places(padded, self.kernel[d], self.stride[d], self.dilation[d])

    def of(self, taps: Sequence[range]) -> Geometry:
        """Of these taps alone: the same windows, without the others."""
        spare = [
            (d * t.start, d * (k - t.stop))
            for d, t, k in zip(self.dilation, taps, self.kernel, strict=True)
        ]
        return replace(
            self,
            kernel=tuple(map(len, taps)),
            padding=tuple(p - s for p, (s, _) in zip(self.padding, spare, strict=True)),
            behind=tuple(p - s for p, (_, s) in zip(self.behind, spare, strict=True)),
        )


def _all(values: Sequence[int], rank: int) -> tuple[int, ...]:
    return tuple(values) if len(values) == rank else tuple(values) * rank


def channels_last(x: Node) -> Node:
    """[N, C, *spatial] -> [N, *spatial, C]"""
    return permute(x, (0, *range(2, len(x.type.shape)), 1))


def channels_first(x: Node) -> Node:
    rank = len(x.type.shape)
    return permute(x, (0, rank - 1, *range(1, rank - 1)))


def _kernel_last(w: Node) -> Node:
    """[O, C, *kernel] -> [*kernel, C, O]"""
    return permute(w, (*range(2, len(w.type.shape)), 1, 0))


def _padded(x: Node, w: Type, g: Geometry) -> Node:
    """x channels-last, w [*kernel, C, O]"""
    around = border if _is_spared(x.type, w, g) else pad
    return around(x, (0, *g.padding, 0), (0, *g.behind, 0))


def _is_spared(x: Type, w: Type, g: Geometry) -> bool:
    """Images are small, so that much of the products meets padding, and there is enough of them and
    of channels for products of one tap at one place; each tap has some.
    """
    enough = x.shape[0] >= _IMAGES and min(w.shape[-2:]) >= _CHANNELS
    if not enough or g.groups > 1 or x.dtype != "f32":
        return False
    met = [_meetings(g, d, extent) for d, extent in enumerate(x.shape[1:-1])]
    if not all(map(all, met)):
        return False
    every = math.prod(len(taps) * g.places(d, x.shape[d + 1]) for d, taps in enumerate(met))
    return math.prod(sum(map(len, taps)) for taps in met) <= (1 - _SPARED) * every


def _windows(x: Node, g: Geometry) -> Node:
    return window(x, g.space, g.kernel, g.stride, g.dilation)


def convolution(x: Node, w: Node, g: Geometry) -> Node:
    """x channels-last, w [*kernel, C, O] -> [N, *places, O]"""
    x = _padded(x, w.type, g)
    if g.groups == 1:
        return _dense(x, w, g)
    channels, out = x.type.shape[-1], w.type.shape[-1]
    if w.type.shape[-2] == 1 and out == channels:
        return _depthwise(x, w, g)
    split = reshape(x, [*x.type.shape[:-1], g.groups, channels // g.groups])
    found = _windows(split, g)  # [N, *places, G, C/G, *kernel]
    rank = g.rank
    taps = range(rank + 3, 2 * rank + 3)
    left = permute(found, (rank + 1, *range(rank + 1), *taps, rank + 2))
    kernel = reshape(w, [*w.type.shape[:-1], g.groups, out // g.groups])
    right = permute(kernel, (rank + 1, *range(rank + 1), rank + 2))
    result = contract(left, right, rank + 1, batch=1)  # [G, N, *places, O/G]
    together = permute(result, (*range(1, rank + 2), 0, rank + 2))
    return reshape(together, [*together.type.shape[:-2], out])


def _dense(x: Node, w: Node, g: Geometry) -> Node:
    """Where taps along the last dimension lie side by side with their channels, in x and in w, they
    are one dimension of the product.
    """
    shape, rank = x.type.shape, g.rank
    channels = shape[-1]
    if g.dilation[-1] != 1 or w.op in ("flip", "slice") or x.op == "border":
        found = _windows(x, g)  # [N, *places, C, *kernel]
        left = permute(found, (*range(rank + 1), *range(rank + 2, 2 * rank + 2), rank + 1))
        return contract(left, w, rank + 1)
    rows = reshape(x, [*shape[:-2], shape[-2] * channels])
    taps = (*g.kernel[:-1], g.kernel[-1] * channels)
    steps = (*g.stride[:-1], g.stride[-1] * channels)
    left = window(rows, g.space, taps, steps, (*g.dilation[:-1], 1))
    right = reshape(w, [*taps, w.type.shape[-1]])
    return contract(left, right, rank)


def _depthwise(x: Node, w: Node, g: Geometry) -> Node:
    """A sum over taps; channels stay side by side."""
    found = _windows(x, g)  # [N, *places, C, *kernel]
    rank = g.rank
    taps = permute(found, (*range(rank + 1), *range(rank + 2, 2 * rank + 2), rank + 1))
    kernel = reshape(w, [*g.kernel, w.type.shape[-1]])
    over = tuple(range(rank + 1, 2 * rank + 1))
    return reduce("sum", make("mul", taps, kernel), over, keepdim=False)


def _seeing(g: Geometry, space: Sequence[int]) -> list[range]:
    """The taps of each dimension, from the first to the last one that meets an image of `space` in
    any window.  Far apart on a small image, the others see padding only.
    """
    found = []
    for d, extent in enumerate(space):
        met = [j for j, windows in enumerate(_meetings(g, d, extent)) if windows]
        found.append(range(met[0], met[-1] + 1) if met else range(g.kernel[d]))
    return found


def _meetings(g: Geometry, d: int, extent: int) -> list[range]:
    """Of each tap of a dimension, the windows in which it meets an image of `extent`."""
    firsts = (g.dilation[d] * j - g.padding[d] for j in range(g.kernel[d]))
    count = g.places(d, extent)
    return [meeting(first, g.stride[d], count, extent) for first in firsts]


def _taps(w: Node, taps: Sequence[range]) -> Node:
    """w [*kernel, C, O], of these taps alone"""
    for dim, t in enumerate(taps):
        w = aten_slice(w, dim, t.start, t.stop)
    return w


def _among_all(found: Node, taps: Sequence[range], g: Geometry) -> Node:
    """The gradient of these taps -> of all: those that see padding only have none."""
    before = [t.start for t in taps]
    behind = [k - t.stop for k, t in zip(g.kernel, taps, strict=True)]
    return pad(found, (*before, 0, 0), (*behind, 0, 0))


def _weight_gradient(x: Node, grad: Node, g: Geometry) -> Node:
    """x and grad channels-last -> [*kernel, C, O]"""
    x = _padded(x, Type(x.type.dtype, (*g.kernel, x.type.shape[-1], grad.type.shape[-1])), g)
    reach = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(grad.type.shape[1:-1], g.stride, g.dilation, g.kernel, strict=True)
    ]
    for dim, extent in zip(g.space, reach, strict=True):
        x = aten_slice(x, dim, 0, extent)
    rank, channels, out = g.rank, x.type.shape[-1], grad.type.shape[-1]
    over = tuple(range(rank + 1))
    if g.groups == 1 and channels < _FEW_CHANNELS and g.dilation[-1] == 1:
        rows = reshape(x, [*x.type.shape[:-2], x.type.shape[-2] * channels])
        taps = (*g.kernel[:-1], g.kernel[-1] * channels)
        steps = (*g.stride[:-1], g.stride[-1] * channels)
        found = window(rows, g.space, taps, steps, (*g.dilation[:-1], 1))
        left = permute(found, (*range(rank + 1, 2 * rank + 1), *over))
        return reshape(contract(left, grad, rank + 1), [*g.kernel, channels, out])
    if g.groups == 1:
        found = _windows(x, g)
        left = permute(found, (*range(rank + 2, 2 * rank + 2), rank + 1, *over))
        return contract(left, grad, rank + 1)
    if channels == g.groups and out == channels:
        found = _windows(x, g)  # [N, *places, C, *kernel]
        taps = permute(found, (*range(rank + 2, 2 * rank + 2), *range(rank + 2)))
        sums = reduce("sum", make("mul", taps, grad), tuple(range(rank, 2 * rank + 1)), False)
        return unsqueeze(sums, rank)
    split = reshape(x, [*x.type.shape[:-1], g.groups, channels // g.groups])
    found = _windows(split, g)  # [N, *places, G, C/G, *kernel]
    left = permute(found, (rank + 1, *range(rank + 3, 2 * rank + 3), rank + 2, *over))
    right = reshape(grad, [*grad.type.shape[:-1], g.groups, out // g.groups])
    right = permute(right, (rank + 1, *range(rank + 1), rank + 2))
    result = contract(left, right, rank + 1, batch=1)  # [G, *kernel, C/G, O/G]
    together = permute(result, (*range(1, rank + 2), 0, rank + 2))
    return reshape(together, [*together.type.shape[:-2], out])


def _input_gradient(grad: Node, w: Node, g: Geometry, space: Sequence[int]) -> Node:
    """grad [N, *places, O], w [*kernel, C/groups, O] -> [N, *space, C]"""
    turned = _turned(w, g)
    if any(s > 1 and d > 1 for s, d in zip(g.stride, g.dilation, strict=True)):
        raise TypeRuleError("a convolution with both a stride and a dilation has no adjoint here")
    first = [p // s for p, s in zip(g.padding, g.stride, strict=True)]
    counts = [
        (extent - 1 + p) // s + 1 - q
        for extent, p, s, q in zip(space, g.padding, g.stride, first, strict=True)
    ]
    residues = pairs(*map(range, g.stride))
    phases = [_phase(grad, turned, g, residue, first, counts) for residue in residues]
    whole = _interleaved(phases, g)
    for dim, p, s, extent in zip(g.space, g.padding, g.stride, space, strict=True):
        whole = aten_slice(whole, dim, p % s, p % s + extent)
    return whole


def _turned(w: Node, g: Geometry) -> Node:
    """[*kernel, C/groups, O] -> [*kernel, O/groups, C]: the adjoint's weight, not yet flipped"""
    rank = g.rank
    if g.groups == 1:
        return permute(w, (*range(rank), rank + 1, rank))
    inner, out = w.type.shape[-2:]
    split = reshape(w, [*g.kernel, inner, g.groups, out // g.groups])
    turned = permute(split, (*range(rank), rank + 2, rank + 1, rank))
    return reshape(turned, [*g.kernel, out // g.groups, g.groups * inner])


def _phase(
    grad: Node, turned: Node, g: Geometry, residue: tuple[int, ...],
    first: list[int], counts: list[int],
) -> Node:  # fmt: skip
    """The padded positions that are `residue` modulo the step: position s * q + r gets
    sum over j of grad[q - j] * w[r + s * j], for `counts` of q from `first` on.
    """
    low: list[int] = []
    high: list[int] = []
    sizes: list[int] = []
    for d, (r, count) in enumerate(zip(residue, counts, strict=True)):
        step, taps = g.stride[d], len(range(r, g.kernel[d], g.stride[d]))
        if taps == 0:
            shape = (grad.type.shape[0], *counts, turned.type.shape[-1])
            return full(shape, 0, grad.type.dtype)
        turned = aten_slice(turned, d, r, None, step)
        reach = g.dilation[d] * (taps - 1)
        low.append(reach - first[d])
        high.append(first[d] + count - grad.type.shape[d + 1])
        sizes.append(taps)
    flipped = make("flip", turned, dims=tuple(range(g.rank))) if max(sizes) > 1 else turned
    ones = (1,) * g.rank
    adjoint = Geometry(tuple(sizes), ones, tuple(low), tuple(high), g.dilation, g.groups)
    return convolution(grad, flipped, adjoint)


def _interleaved(phases: list[Node], g: Geometry) -> Node:
    """Phases in row-major order of their residues -> one tensor, the last spatial dimension
    first."""
    for dim, step in reversed(list(zip(g.space, g.stride, strict=True))):
        rows = [phases[i : i + step] for i in range(0, len(phases), step)]
        phases = [_woven(row, dim) for row in rows]
    return phases[0]


def _woven(parts: list[Node], dim: int) -> Node:
    if len(parts) == 1:
        return parts[0]
    stacked = make("cat", *(unsqueeze(part, dim + 1) for part in parts), dim=dim + 1)
    shape = list(parts[0].type.shape)
    shape[dim] *= len(parts)
    return reshape(stacked, shape)


def _geometry(
    w: Node, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Geometry:
    rank = len(w.type.shape) - 2
    kernel = w.type.shape[2:]
    padding = _all(padding, rank)
    return Geometry(kernel, _all(stride, rank), padding, padding, _all(dilation, rank), groups)


@translates("aten.convolution.default")
def _convolution(
    x: Node, w: Node, bias: Node | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Node:  # fmt: skip
    g = _geometry(w, stride, padding, dilation, groups)
    if len(x.type.shape) != g.rank + 2 or 0 in x.type.shape:
        raise TypeRuleError(f"convolution: {x.type} has no batch dimension or no elements")
    inside, kernel, space = channels_last(x), _kernel_last(w), x.type.shape[2:]
    if transposed:
        extra = _all(output_padding, g.rank)
        space = tuple(
            (extent - 1) * s - 2 * p + d * (k - 1) + 1 + more
            for extent, s, p, d, k, more in zip(
                space, g.stride, g.padding, g.dilation, g.kernel, extra, strict=True
            )
        )
    taps = _seeing(g, space)
    kernel, seen = _taps(kernel, taps), g.of(taps)
    if transposed:
        out = _input_gradient(inside, kernel, seen, space)
    else:
        out = convolution(inside, kernel, seen)
    if bias is not None:
        out = make("add", out, cast(bias, out.type.dtype))
    return channels_first(out)


@translates("aten.convolution_backward.default")
def _convolution_backward(
    grad: Node, x: Node, w: Node, bias_sizes: Sequence[int] | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int, mask: Sequence[bool],
) -> tuple[Node | None, Node | None, Node | None]:  # fmt: skip
    g = _geometry(w, stride, padding, dilation, groups)
    if len(x.type.shape) != g.rank + 2 or 0 in x.type.shape:
        raise TypeRuleError(f"convolution: {x.type} has no batch dimension or no elements")
    outer, inner = channels_last(grad), channels_last(x)
    big, small = (outer, inner) if transposed else (inner, outer)
    taps = _seeing(g, big.type.shape[1:-1])
    kernel, seen = _taps(_kernel_last(w), taps), g.of(taps)
    grad_x = grad_w = grad_b = None
    if mask[0] and transposed:
        grad_x = channels_first(convolution(outer, kernel, seen))
    elif mask[0]:
        grad_x = channels_first(_input_gradient(outer, kernel, seen, x.type.shape[2:]))
    if mask[1]:
        found = _among_all(_weight_gradient(big, small, seen), taps, g)  # [*kernel, C, O]
        rank = g.rank
        grad_w = permute(found, (rank + 1, rank, *range(rank)))
    if mask[2]:
        grad_b = reduce("sum", outer, tuple(range(g.rank + 1)), keepdim=False)
    return grad_x, grad_w, grad_b
