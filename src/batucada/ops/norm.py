"""Layer, batch and group normalisation.  Half precision is computed in f32, in which the saved
means and reciprocals of deviations stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops.arithmetic import scaled
from batucada.ops.base import TypeRuleError, make, translates
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast, widen
from batucada.ops.reduce import reduce
from batucada.ops.view import reshape

Maybe = Node | None
Mask = Sequence[bool]


@dataclass(frozen=True, slots=True)
class _Normal:
    """x, less its mean over some dimensions, by its deviation; what is reduced has extent 1."""

    value: Node
    mean: Node
    variance: Node
    scale: Node  # 1 / sqrt(variance + eps)


def _scale(variance: Node, eps: float) -> Node:
    return make("rsqrt", make("add", variance, scalar(eps, variance.type.dtype)))


def _normal(x: Node, dims: Sequence[int], eps: float) -> _Normal:
    count = scalar(math.prod(x.type.shape[d] for d in dims), x.type.dtype)
    mean = make("div", reduce("sum", x, dims), count)
    spread = make("sub", x, mean)
    variance = make("div", reduce("sum", make("mul", spread, spread), dims), count)
    scale = _scale(variance, eps)
    return _Normal(make("mul", spread, scale), mean, variance, scale)


def _affine(x: Node, weight: Maybe, bias: Maybe, shape: Sequence[int], dtype: DType) -> Node:
    """x * weight + bias, of which each may be missing, as `dtype`."""
    for op, operand in (("mul", weight), ("add", bias)):
        if operand is not None:
            x = make(op, x, cast(reshape(operand, shape), x.type.dtype))
    return cast(x, dtype)


def _as(value: Node, like: Node, wanted: bool) -> Maybe:
    return cast(value, like.type.dtype) if wanted else None


def _layer_dims(x: Node, shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """The dimensions outside and within what is normalised."""
    rank = len(x.type.shape)
    first = rank - len(shape)
    return list(range(first)), list(range(first, rank))


@translates("aten.native_layer_norm.default")
def _layer_norm(
    x: Node, shape: Sequence[int], weight: Maybe, bias: Maybe, eps: float
) -> tuple[Node, Node, Node]:
    shape = tuple(shape)
    given = [x.type.shape[len(x.type.shape) - len(shape) :]]
    given += [operand.type.shape for operand in (weight, bias) if operand is not None]
    if not shape or any(found != shape for found in given):
        raise TypeRuleError(f"layer norm over {shape} of {' and '.join(map(str, given))}")
    normal = _normal(widen(x), _layer_dims(x, shape)[1], eps)
    return _affine(normal.value, weight, bias, shape, x.type.dtype), normal.mean, normal.scale


@translates("aten.native_layer_norm_backward.default")
def _layer_norm_backward(
    grad: Node, x: Node, shape: Sequence[int], mean: Node, scale: Node, weight: Maybe, bias: Maybe,
    mask: Mask,
) -> tuple[Maybe, Maybe, Maybe]:  # fmt: skip
    """scale / n * (n g - sum(g) - y sum(g y)) with y = (x - mean) * scale, g = grad * weight"""
    outer, inner = _layer_dims(x, shape)
    count = math.prod(shape)
    wide = widen(grad)
    normal = make("mul", make("sub", widen(x), mean), scale)
    g = wide if weight is None else make("mul", wide, cast(weight, wide.type.dtype))
    along = make("mul", normal, reduce("sum", make("mul", g, normal), inner))
    rest = make("sub", make("sub", scaled(g, count), reduce("sum", g, inner)), along)
    to_x = make("mul", make("div", scale, scalar(count, scale.type.dtype)), rest)

    def total(value: Node) -> Node:
        return reshape(reduce("sum", value, outer) if outer else value, shape)

    return (
        _as(to_x, x, mask[0]),
        None if weight is None else _as(total(make("mul", wide, normal)), weight, mask[1]),
        None if bias is None else _as(total(wide), bias, mask[2]),
    )


def _channels(x: Node) -> tuple[list[int], list[int]]:
    """The dimensions that batch norm reduces, and the shape of what it has for each channel."""
    shape = x.type.shape
    return [0, *range(2, len(shape))], [s if d == 1 else 1 for d, s in enumerate(shape)]


@translates("aten.native_batch_norm.default")
def _batch_norm(
    x: Node, weight: Maybe, bias: Maybe, running_mean: Maybe, running_variance: Maybe,
    training: bool, momentum: float, eps: float,
) -> tuple[Maybe, ...]:  # fmt: skip
    """The result, what the backward pass needs, and the new running mean and variance, if any."""
    dims, shape = _channels(x)
    channels = shape[1:2]
    wide = widen(x)
    if not training:
        mean, scale = _running(running_mean, running_variance, wide.type.dtype, eps)
        value = make("mul", make("sub", wide, reshape(mean, shape)), reshape(scale, shape))
        out = _affine(value, weight, bias, shape, x.type.dtype)
        return out, mean, scale, None, None
    normal = _normal(wide, dims, eps)
    count = x.type.size // max(channels[0], 1)
    mean, scale, variance = (
        reshape(part, channels) for part in (normal.mean, normal.scale, normal.variance)
    )
    unbiased = scaled(variance, count / (count - 1) if count > 1 else math.nan)
    out = _affine(normal.value, weight, bias, shape, x.type.dtype)
    running = (_moved(running_mean, mean, momentum), _moved(running_variance, unbiased, momentum))
    return out, mean, scale, *running


def _running(mean: Maybe, variance: Maybe, dtype: DType, eps: float) -> tuple[Node, Node]:
    if mean is None or variance is None:
        raise TypeRuleError("batch norm outside of training has no statistics")
    return cast(mean, dtype), _scale(cast(variance, dtype), eps)


def _moved(running: Maybe, now: Node, momentum: float) -> Maybe:
    if running is None:
        return None
    kept = scaled(cast(running, now.type.dtype), 1 - momentum)
    return cast(make("add", scaled(now, momentum), kept), running.type.dtype)


@translates("aten.native_batch_norm_backward.default")
def _batch_norm_backward(
    grad: Node, x: Node, weight: Maybe, running_mean: Maybe, running_variance: Maybe,
    mean: Maybe, scale: Maybe, training: bool, eps: float, mask: Mask,
) -> tuple[Maybe, Maybe, Maybe]:  # fmt: skip
    """scale * weight * (grad - mean(grad) - spread * scale^2 * mean(grad * spread)) with
    spread = x - mean; outside of training the statistics depend on no x
    """
    dims, shape = _channels(x)
    wide, like = widen(grad), x if weight is None else weight
    if not training:
        mean, scale = _running(running_mean, running_variance, wide.type.dtype, eps)
    assert mean is not None
    assert scale is not None
    spread = make("sub", widen(x), reshape(mean, shape))
    total = reduce("sum", wide, dims, keepdim=False)
    along = reduce("sum", make("mul", wide, spread), dims, keepdim=False)
    factor = scale if weight is None else make("mul", scale, cast(weight, scale.type.dtype))
    to_x = wide
    if training:
        share = shape[1] / max(x.type.size, 1)
        slope = make("mul", scaled(along, share), make("mul", scale, scale))
        to_x = make("sub", to_x, make("mul", spread, reshape(slope, shape)))
        to_x = make("sub", to_x, reshape(scaled(total, share), shape))
    return (
        _as(make("mul", to_x, reshape(factor, shape)), x, mask[0]),
        _as(make("mul", along, scale), like, mask[1]),
        _as(total, like, mask[2]),
    )


@translates("aten.native_group_norm.default")
def _group_norm(
    x: Node, weight: Maybe, bias: Maybe, batch: int, channels: int, space: int, groups: int,
    eps: float,
) -> tuple[Node, Node, Node]:  # fmt: skip
    grouped = reshape(widen(x), (batch, groups, channels // groups, space))
    normal = _normal(grouped, (2, 3), eps)
    value = reshape(normal.value, x.type.shape)
    out = _affine(value, weight, bias, _channels(x)[1], x.type.dtype)
    mean, scale = (reshape(part, (batch, groups)) for part in (normal.mean, normal.scale))
    return out, mean, scale


@translates("aten.native_group_norm_backward.default")
def _group_norm_backward(
    grad: Node, x: Node, mean: Node, scale: Node, weight: Maybe, batch: int, channels: int,
    space: int, groups: int, mask: Mask,
) -> tuple[Maybe, Maybe, Maybe]:  # fmt: skip
    """grad * scale * weight + x * b - b * mean - sum(g) * scale / n, of each group of n elements,
    with g = grad * weight and b = (sum(g) * mean - sum(g x)) * scale^3 / n
    """
    whole, flat = (batch, groups, channels // groups, space), (batch, channels, space)
    wide, values, like = widen(grad), widen(x), x if weight is None else weight
    dtype = wide.type.dtype
    sums = [
        reduce("sum", reshape(part, flat), 2) for part in (make("mul", wide, values), wide)
    ]  # [batch, channels, 1]
    along, total = (reshape(part, whole[:3]) for part in sums)
    mean, scale = (reshape(part, (batch, groups, 1)) for part in (mean, scale))
    gamma = None if weight is None else cast(reshape(weight, (1, *whole[1:3])), dtype)

    def of_group(part: Node) -> Node:
        return reduce("sum", part if gamma is None else make("mul", part, gamma), 2)

    along_group, total_group = of_group(along), of_group(total)
    share = 1 / max(space * whole[2], 1)
    cube = make("mul", make("mul", scale, scale), scale)
    off = make("sub", make("mul", total_group, mean), along_group)
    b = scaled(make("mul", off, cube), share)
    c = make("add", make("mul", b, mean), scaled(make("mul", total_group, scale), share))
    factor = scale if gamma is None else make("mul", scale, gamma)
    a, b, c = (reshape(part, (*part.type.shape, 1)) for part in (factor, b, c))
    slope = make("mul", reshape(wide, whole), a)
    to_x = make("sub", make("add", slope, make("mul", reshape(values, whole), b)), c)
    to_weight = make("mul", make("sub", along, make("mul", total, mean)), scale)
    over_batch = [reshape(reduce("sum", part, 0), (channels,)) for part in (to_weight, total)]
    return (
        _as(reshape(to_x, x.type.shape), x, mask[0]),
        _as(over_batch[0], like, mask[1]),
        _as(over_batch[1], like, mask[2]),
    )
