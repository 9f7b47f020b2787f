"""Pooling: reductions over windows, and their adjoints without a scatter.

Inside, tensors are channels-last.  The gradient of an element is gathered from the windows that
hold it, so that no two of them write to the same place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce as fold
from typing import Any

from batucada.ir.graph import Node
from batucada.ir.types import DType
from batucada.ops.base import ATEN, Translation, TypeRuleError, make
from batucada.ops.conv import channels_first, channels_last
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce
from batucada.ops.view import expand, permute, reshape, spaced
from batucada.ops.window import pad, places, window


@dataclass(frozen=True, slots=True)
class _Pool:
    """Of windows over the spatial dimensions of extents `space`."""

    space: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.space)

    @property
    def is_partition(self) -> bool:
        """No element is in two windows, and none of the padding in any."""
        apart = self.kernel == self.stride and set(self.dilation) == {1}
        return (
            apart
            and not any(self.padding)
            and all(o * k <= e for o, k, e in zip(self.out, self.kernel, self.space, strict=True))
        )

    def padded(self, x: Node, value: float) -> Node:
        """x channels-last with as much around it as the windows reach."""
        high = [
            (o - 1) * s + d * (k - 1) + 1 - p - e
            for o, s, d, k, p, e in zip(
                self.out, self.stride, self.dilation, self.kernel, self.padding, self.space,
                strict=True,
            )
        ]  # fmt: skip
        return pad(x, (0, *self.padding, 0), (0, *high, 0), value)

    def taps(self, x: Node) -> Node:
        """[N, *out, *kernel, C] of a padded x"""
        found = window(x, range(1, self.rank + 1), self.kernel, self.stride, self.dilation)
        return _channels_behind_taps(found, self.rank)

    def over(self) -> tuple[int, ...]:
        """The dimensions of the taps."""
        return tuple(range(self.rank + 1, 2 * self.rank + 1))


def _channels_behind_taps(found: Node, rank: int) -> Node:
    """[N, *places, C, *kernel] -> [N, *places, *kernel, C]"""
    return permute(found, (*range(rank + 1), *range(rank + 2, 2 * rank + 2), rank + 1))


def _pool(
    x: Node, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int] | int,
    dilation: Sequence[int] | int, ceil: bool, rank: int,
) -> _Pool:  # fmt: skip
    def full(values: Sequence[int] | int) -> tuple[int, ...]:
        values = [values] if isinstance(values, int) else list(values)
        return tuple(values) * rank if len(values) == 1 else tuple(values)

    if len(x.type.shape) != rank + 2 or 0 in x.type.shape:
        raise TypeRuleError(f"pooling: {x.type} has no batch dimension or no elements")
    space = x.type.shape[2:]
    kernel, padding, dilation = full(kernel), full(padding), full(dilation)
    stride = full(stride) if stride else kernel
    out = []
    for e, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True):
        count = places(e + 2 * p + (s - 1 if ceil else 0), k, s, d)
        out.append(count - 1 if ceil and (count - 1) * s >= e + p else count)
    return _Pool(space, kernel, stride, padding, dilation, tuple(out))


def _tap_numbers(pool: _Pool, dims: Sequence[int], turned: bool = False) -> Node:
    """f32: the number of each tap of a window, row-major, along `dims`; `turned`: the last is 0."""
    total = scalar(0, "i64")
    for d, extent in enumerate(pool.kernel):
        step = math.prod(pool.kernel[d + 1 :])
        first, step = (step * (extent - 1), -step) if turned else (0, step)
        total = make("add", total, _along(extent, step, first, dims[d], 2 * pool.rank + 2))
    return cast(total, "f32")


def _along(extent: int, factor: int, offset: int, dim: int, rank: int) -> Node:
    """factor * i + offset along `dim` of `rank` dimensions"""
    ramp = make("iota", size=extent)
    if factor != 1:
        ramp = make("mul", ramp, scalar(factor, "i64"))
    if offset:
        ramp = make("add", ramp, scalar(offset, "i64"))
    return reshape(ramp, [extent if i == dim else 1 for i in range(rank)])


def _largest(x: Node, pool: _Pool) -> tuple[Node, Node]:
    """x channels-last -> the maxima [N, *out, C], and f32 the number of the first tap that has
    each; a NaN is the maximum.
    """
    if not x.type.is_float:
        raise TypeRuleError(f"max pooling takes floating-point numbers, not {x.type}")
    over = pool.over()
    return largest_of(pool.taps(pool.padded(x, float("-inf"))), over, _tap_numbers(pool, over))


def largest_of(taps: Node, over: Sequence[int], numbers: Node) -> tuple[Node, Node]:
    """The maxima over the dimensions `over`, and the least of the `numbers` of those that have
    it; a NaN is the maximum.
    """
    largest = reduce("amax", taps, tuple(over))
    hit = make("or", make("eq", taps, largest), make("isnan", taps))
    infinity = scalar(math.inf if numbers.type.is_float else 2**62, numbers.type.dtype)
    first = reduce("amin", make("where", hit, numbers, infinity), tuple(over), keepdim=False)
    return reshape(largest, first.type.shape), first


def _max_pool(x: Node, pool: _Pool) -> tuple[Node, Node]:
    """The maxima, and where each lies in its channel, row-major."""
    largest, first = _largest(channels_last(x), pool)
    left = cast(first, "i64")
    total = scalar(0, "i64")
    for d, extent in enumerate(pool.kernel):
        behind = scalar(math.prod(pool.kernel[d + 1 :]), "i64")
        tap = make("remainder", make("floor_div", left, behind), scalar(extent, "i64"))
        tap = make("mul", tap, scalar(pool.dilation[d], "i64"))
        start = _along(pool.out[d], pool.stride[d], -pool.padding[d], 1 + d, pool.rank + 2)
        total = make("mul", total, scalar(pool.space[d], "i64"))
        total = make("add", total, make("add", start, tap))
    return channels_first(largest), channels_first(total)


def _max_backward(grad: Node, x: Node, pool: _Pool) -> Node:
    """The tap that is largest is found again from x: what the forward found is the same value."""
    _, first = _largest(channels_last(x), pool)
    grad = channels_last(grad)
    zero, rank = scalar(0, grad.type.dtype), pool.rank
    if pool.is_partition:
        numbers = _tap_numbers(pool, range(2, 2 * rank + 1, 2))
        hit = make("eq", _beside_each_tap(first, pool), numbers)
        return _covered(make("where", hit, _beside_each_tap(grad, pool), zero), pool)
    hit = make("eq", _windows_of(first, pool), _tap_numbers(pool, pool.over(), turned=True))
    return _summed(make("where", hit, _windows_of(grad, pool), zero), pool)


def _beside_each_tap(x: Node, pool: _Pool) -> Node:
    """[N, *out, C] -> [N, out, 1, out, 1, ..., C]"""
    return reshape(x, [x.type.shape[0], *(e for o in pool.out for e in (o, 1)), x.type.shape[-1]])


def _summed(taps: Node, pool: _Pool) -> Node:
    return channels_first(reduce("sum", taps, pool.over(), keepdim=False))


def _beside_taps(x: Node, pool: _Pool) -> Node:
    """[N, *out, C] -> [N, *out, *1, C]"""
    return reshape(x, [*x.type.shape[:-1], *[1] * pool.rank, x.type.shape[-1]])


def _unpartitioned(x: Node, pool: _Pool) -> Node:
    """[N, *out, *kernel, C] -> [N, C, *space], zeros where there is no window"""
    rank = pool.rank
    x = expand(x, (x.type.shape[0], *pool.out, *pool.kernel, x.type.shape[-1]))
    order = [0, *(d for i in range(rank) for d in (1 + i, 1 + rank + i)), 2 * rank + 1]
    return _covered(permute(x, order), pool)


def _covered(x: Node, pool: _Pool) -> Node:
    """[N, out, kernel, out, kernel, ..., C] -> [N, C, *space], zeros where there is no window"""
    covered = [o * k for o, k in zip(pool.out, pool.kernel, strict=True)]
    whole = reshape(x, [x.type.shape[0], *covered, x.type.shape[-1]])
    high = [e - c for e, c in zip(pool.space, covered, strict=True)]
    return channels_first(pad(whole, (0,) * (pool.rank + 2), (0, *high, 0)))


def _windows_of(x: Node, pool: _Pool) -> Node:
    """[N, *out, C] -> [N, *space, *kernel, C]: what the windows that hold an element give it."""
    for d in range(pool.rank):
        if pool.stride[d] > 1:
            x = spaced(x, 1 + d, pool.stride[d])
        reach = pool.dilation[d] * (pool.kernel[d] - 1)
        low = [reach - pool.padding[d] if i == 1 + d else 0 for i in range(pool.rank + 2)]
        behind = pool.space[d] + pool.padding[d] - x.type.shape[1 + d]
        high = [behind if i == 1 + d else 0 for i in range(pool.rank + 2)]
        x = pad(x, low, high)
    ones = (1,) * pool.rank
    found = window(x, range(1, pool.rank + 1), pool.kernel, ones, pool.dilation)
    return _channels_behind_taps(found, pool.rank)


def max_pool(
    x: Node, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1, ceil: bool = False,
) -> tuple[Node, Node]:  # fmt: skip
    rank = len(x.type.shape) - 2
    return _max_pool(x, _pool(x, kernel, stride, padding, dilation, ceil, rank))


def max_pool_backward(
    grad: Node, x: Node, kernel: Sequence[int], stride: Sequence[int],
    padding: Sequence[int] | int, dilation: Sequence[int] | int, ceil: bool, indices: Node,
) -> Node:  # fmt: skip
    rank = len(x.type.shape) - 2
    return _max_backward(grad, x, _pool(x, kernel, stride, padding, dilation, ceil, rank))


def _divisors(pool: _Pool, with_padding: bool, given: int | None, dtype: DType) -> Node:
    """[1, *out, 1]: how many elements each mean is over"""
    if given:
        return scalar(given, dtype)
    counts: list[Node] = []
    for d in range(pool.rank):
        start = _along(pool.out[d], pool.stride[d], -pool.padding[d], 1 + d, pool.rank + 2)
        stop = make("add", start, scalar(pool.kernel[d], "i64"))
        border = pool.padding[d] if with_padding else 0
        stop = make("minimum", stop, scalar(pool.space[d] + border, "i64"))
        if not with_padding:
            start = make("maximum", start, scalar(0, "i64"))
        counts.append(make("sub", stop, start))
    return cast(fold(lambda a, b: make("mul", a, b), counts), dtype)


def avg_pool(
    x: Node, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] | int = 0,
    ceil: bool = False, with_padding: bool = True, divisor: int | None = None,
) -> Node:  # fmt: skip
    pool = _pool(x, kernel, stride, padding, 1, ceil, len(x.type.shape) - 2)
    total = reduce("sum", pool.taps(pool.padded(channels_last(x), 0)), pool.over(), keepdim=False)
    return channels_first(make("div", total, _divisors(pool, with_padding, divisor, x.type.dtype)))


def avg_pool_backward(
    grad: Node, x: Node, kernel: Sequence[int], stride: Sequence[int],
    padding: Sequence[int] | int, ceil: bool, with_padding: bool, divisor: int | None,
) -> Node:  # fmt: skip
    pool = _pool(x, kernel, stride, padding, 1, ceil, len(x.type.shape) - 2)
    share = make("div", channels_last(grad), _divisors(pool, with_padding, divisor, x.type.dtype))
    if pool.is_partition:
        return _unpartitioned(_beside_taps(share, pool), pool)
    return _summed(_windows_of(share, pool), pool)


def of_images(rank: int, name: str, translate: Translation) -> None:
    """Registers a translation for tensors [N, C, *space], and for one image [C, *space]."""

    def any_batch(x: Node, *args: Any, **kwargs: Any) -> Any:
        if len(x.type.shape) != rank + 1:
            return translate(x, *args, **kwargs)
        more = [_of_one(arg) if isinstance(arg, Node) else arg for arg in args]
        named = {k: _of_one(v) if isinstance(v, Node) else v for k, v in kwargs.items()}
        found = translate(_of_one(x), *more, **named)
        images = found if isinstance(found, tuple) else (found,)
        images = tuple(reshape(image, image.type.shape[1:]) for image in images)
        return images if isinstance(found, tuple) else images[0]

    ATEN[f"aten.{name}.default"] = any_batch


def _of_one(x: Node) -> Node:
    return reshape(x, (1, *x.type.shape))


for _rank in (2, 3):
    of_images(_rank, f"max_pool{_rank}d_with_indices", max_pool)
    of_images(_rank, f"max_pool{_rank}d_with_indices_backward", max_pool_backward)
    of_images(_rank, f"avg_pool{_rank}d", avg_pool)
    of_images(_rank, f"avg_pool{_rank}d_backward", avg_pool_backward)
