"""Gradients of interpolation and of padding that repeats the border.

A resampled dimension is a product with a small matrix, whose row o holds the weights with which the
elements of the source enter element o.  The matrices are made of index ramps, in f32 as PyTorch
computes positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from batucada.ir.graph import Node
from batucada.ops.adaptive_pool import applied
from batucada.ops.base import ATEN, TypeRuleError, make, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import aten_slice, permute, reshape

_CUBIC = -0.75  # PyTorch's coefficient of the cubic convolution (Keys 1981)

Weights = Callable[[int, int, bool, float | None], Node]
"""The matrix f32[out, in] for extents out and in, align_corners, and a given scale factor."""


def _number(value: float) -> Node:
    return scalar(value, "f32")


def _ramp(size: int, shape: Sequence[int]) -> Node:
    return reshape(cast(make("iota", size=size), "f32"), shape)


def _ratio(out: int, source: int, align_corners: bool, scale: float | None) -> float:
    """Elements of the source from one result to the next."""
    if align_corners:
        return (source - 1) / (out - 1) if out > 1 else 0.0
    return 1 / scale if scale else source / out


def _clamped(x: Node, source: int) -> Node:
    return make("minimum", make("maximum", x, _number(0.0)), _number(source - 1.0))


def _hits(position: Node, source: int) -> Node:
    """1 where the whole number `position` f32[out, 1] is the column, else 0: f32[out, in]"""
    return cast(make("eq", position, _ramp(source, (1, source))), "f32")


def _nearest(offset: float) -> Weights:
    def weights(out: int, source: int, _: bool, scale: float | None) -> Node:
        """floor((o + offset) * ratio)"""
        ratio = _number(_ratio(out, source, False, scale))
        place = make("add", _ramp(out, (out, 1)), _number(offset))
        return _hits(_clamped(make("floor", make("mul", place, ratio)), source), source)

    return weights


def _places(out: int, source: int, align_corners: bool, scale: float | None) -> Node:
    """o * ratio, or (o + 1/2) * ratio - 1/2: f32[out, 1]"""
    ratio, ramp = _number(_ratio(out, source, align_corners, scale)), _ramp(out, (out, 1))
    if align_corners:
        return make("mul", ramp, ratio)
    middle = make("mul", make("add", ramp, _number(0.5)), ratio)
    return make("sub", middle, _number(0.5))


def _linear(out: int, source: int, align_corners: bool, scale: float | None) -> Node:
    """max(0, 1 - distance) from the place, which is moved inside the source"""
    place = _clamped(_places(out, source, align_corners, scale), source)
    distance = make("abs", make("sub", place, _ramp(source, (1, source))))
    return make("maximum", make("sub", _number(1.0), distance), _number(0.0))


def _cubic(out: int, source: int, align_corners: bool, scale: float | None) -> Node:
    """Four taps around the place; those outside the source count for its border"""
    place = _places(out, source, align_corners, scale)
    floor = make("floor", place)
    total: Node | None = None
    for tap in (-1.0, 0.0, 1.0, 2.0):
        at = make("add", floor, _number(tap))
        distance = make("abs", make("sub", place, at))
        weight = _near(distance) if tap in (0.0, 1.0) else _far(distance)
        part = make("mul", weight, _hits(_clamped(at, source), source))
        total = part if total is None else make("add", total, part)
    assert total is not None
    return total


def _polynomial(x: Node, *factors: float) -> Node:
    """By Horner's rule, the highest power's factor first."""
    value: Node = _number(factors[0])
    for factor in factors[1:]:
        value = make("add", make("mul", value, x), _number(factor))
    return value


def _near(x: Node, a: float = _CUBIC) -> Node:
    """(a + 2) x^3 - (a + 3) x^2 + 1, up to a distance of 1"""
    return _polynomial(x, a + 2, -(a + 3), 0.0, 1.0)


def _far(x: Node, a: float = _CUBIC) -> Node:
    """a x^3 - 5 a x^2 + 8 a x - 4 a, from a distance of 1 to 2"""
    return _polynomial(x, a, -5 * a, 8 * a, -4 * a)


def _backward(weights: Weights, has_corners: bool) -> Callable[..., Node]:
    def translate(grad: Node, out: Any, source: Any, *options: Any, **named: Any) -> Node:
        corners = named.get("align_corners", options[0] if has_corners and options else False)
        given = [v for k, v in named.items() if k.startswith("scales")]
        scales = [*options[has_corners:], *given]
        if 0 in grad.type.shape:
            raise TypeRuleError("the gradient of an empty interpolation")
        spatial = list(source[2:])
        scales += [None] * (len(spatial) - len(scales))
        if not has_corners and _is_blocks(out, spatial, scales):
            return _block_sums(grad, spatial)
        for dim, (o, s, scale) in enumerate(zip(out, spatial, scales, strict=True), 2):
            matrix = cast(weights(o, s, corners, scale), grad.type.dtype)
            grad = applied(grad, matrix, dim)
        return grad

    return translate


def _is_blocks(out: Sequence[int], source: Sequence[int], scales: Sequence[float | None]) -> bool:
    """Each element of the source is repeated as often as any other."""
    pairs = zip(out, source, scales, strict=True)
    return all(o % s == 0 and (scale is None or scale == o // s) for o, s, scale in pairs)


def _block_sums(grad: Node, source: Sequence[int]) -> Node:
    shape = list(grad.type.shape[:2])
    for extent, kept in zip(grad.type.shape[2:], source, strict=True):
        shape += [kept, extent // kept]
    return reduce("sum", reshape(grad, shape), tuple(range(3, len(shape), 2)), keepdim=False)


for _rank, _smooth in enumerate(("linear1d", "bilinear2d", "trilinear3d"), 1):
    ATEN[f"aten.upsample_{_smooth}_backward.default"] = _backward(_linear, True)
    ATEN[f"aten.upsample_nearest{_rank}d_backward.default"] = _backward(_nearest(0.0), False)
    _exact = f"aten._upsample_nearest_exact{_rank}d_backward.default"
    ATEN[_exact] = _backward(_nearest(0.5), False)
ATEN["aten.upsample_bicubic2d_backward.default"] = _backward(_cubic, True)


# ---- antialiased: a filter as wide as the distance of the places


def _linear_filter(x: Node) -> Node:
    """max(0, 1 - |x|)"""
    distance = make("sub", _number(1.0), make("abs", x))
    return make("maximum", distance, _number(0.0))


def _cubic_filter(x: Node) -> Node:
    """Cubic convolution with a = -1/2, as Pillow has it"""
    size = make("abs", x)
    far = make("where", make("lt", size, _number(2.0)), _far(size, -0.5), _number(0.0))
    return make("where", make("lt", size, _number(1.0)), _near(size, -0.5), far)


def _smoothed(weight: Callable[[Node], Node], reach: float) -> Weights:
    def weights(out: int, source: int, align_corners: bool, scale: float | None) -> Node:
        """The filter around each place, its taps within the source, made to sum to 1"""
        ratio = _ratio(out, source, align_corners, scale)
        wide = max(ratio, 1.0)
        place = make("mul", make("add", _ramp(out, (out, 1)), _number(0.5)), _number(ratio))
        column = _ramp(source, (1, source))
        edge = make("add", place, _number(0.5))
        first = make("floor", make("sub", edge, _number(reach * wide)))
        end = make("floor", make("add", edge, _number(reach * wide)))
        inside = make("and", make("ge", column, first), make("lt", column, end))
        at = make("add", make("sub", column, place), _number(0.5))
        found = weight(make("mul", at, _number(1 / wide)))
        found = make("where", inside, found, _number(0.0))
        return make("div", found, reduce("sum", found, 1))

    return weights


def _forward(weights: Weights) -> Callable[..., Node]:
    def translate(x: Node, out: Any, align_corners: bool, *scales: float | None) -> Node:
        if 0 in x.type.shape:
            raise TypeRuleError("an empty interpolation")
        spatial = x.type.shape[2:]
        given = [*scales, *[None] * (len(spatial) - len(scales))]
        for dim, (o, s, scale) in enumerate(zip(out, spatial, given, strict=True), 2):
            matrix = cast(weights(o, s, align_corners, scale), x.type.dtype)
            x = applied(x, permute(matrix, (1, 0)), dim)
        return x

    return translate


for _kind, _weights in {
    "bilinear": _smoothed(_linear_filter, 1.0), "bicubic": _smoothed(_cubic_filter, 2.0),
}.items():  # fmt: skip
    ATEN[f"aten._upsample_{_kind}2d_aa.default"] = _forward(_weights)
    ATEN[f"aten._upsample_{_kind}2d_aa_backward.default"] = _backward(_weights, True)


# ---- padding by the border


@translates(*(f"aten.replication_pad{rank}d_backward.default" for rank in (1, 2, 3)))
def _replication_pad_backward(grad: Node, x: Node, padding: Sequence[int]) -> Node:
    """What was copied from the border is added to it."""
    for number in range(len(padding) // 2):
        low, high = padding[2 * number : 2 * number + 2]
        if low < 0 or high < 0:
            raise TypeRuleError("the gradient of a negative replication padding")
        dim = len(x.type.shape) - 1 - number
        grad = _folded(grad, dim, low, x.type.shape[dim])
    return grad


def _folded(grad: Node, dim: int, low: int, kept: int) -> Node:
    """The sum of the first `low` + 1 elements, those between, and the sum of the rest"""
    end = grad.type.shape[dim]
    if end == kept:
        return grad
    if kept == 1:
        return reduce("sum", grad, dim)
    first = reduce("sum", aten_slice(grad, dim, 0, low + 1), dim)
    last = reduce("sum", aten_slice(grad, dim, low + kept - 1, end), dim)
    middle = [aten_slice(grad, dim, low + 1, low + kept - 1)] if kept > 2 else []
    return make("cat", first, *middle, last, dim=dim)
