"""Fourier transforms as matrix products.

A transform of length N = P Q is one of length P, a product with roots of unity, and one of length Q
(Cooley and Tukey, 1965), so that N (P + Q) products take the place of N^2; Q is split again as long
as that pays.  A short length is one product with the matrix of its roots, and a length with a large
prime factor is a convolution (Bluestein, 1970).  The tables are computed in float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from batucada.capture.complex_rules import Pair, Part, bilinear, mul, plus, rule, times

Tensor = torch.Tensor

_LONGEST_FACTOR = 64  # of a split
_SPLIT_COST = 24  # what a split costs beside its products, in products for each element
_LONGEST_MATRIX = 1024  # beyond it a convolution is shorter


@functools.cache
def _cost(length: int) -> tuple[int, int]:
    """Products for each element, and the factor P to split off, `length` itself for none."""
    best = length, length
    for factor in range(2, min(_LONGEST_FACTOR, length // 2) + 1):
        if length % factor == 0:
            best = min(best, (factor + _SPLIT_COST + _cost(length // factor)[0], factor))
    return best


@functools.lru_cache(maxsize=256)
def _roots(length: int, rows: int, columns: int, dtype: torch.dtype) -> Pair:
    """exp(-2 pi i r c / length) [rows, columns]"""
    with _disable_current_modes():
        grid = np.outer(np.arange(rows), np.arange(columns)) % length
        return _unit(grid * (-2 * math.pi / length), dtype)


def _unit(angle: np.ndarray, dtype: torch.dtype) -> Pair:
    """By numpy, whose sines take less memory than PyTorch's, 0.7 MB of code."""
    kept = str(dtype).removeprefix("torch.")
    re, im = (torch.from_numpy(wave(angle).astype(kept)) for wave in (np.cos, np.sin))
    return Pair(re, im)


@functools.lru_cache(maxsize=64)
def _chirp(length: int, dtype: torch.dtype) -> tuple[Pair, Pair, int]:
    """exp(-pi i n^2 / length) [length, 1], and the spectrum of the conjugate of that, n on both
    sides of 0 [longer, 1]."""
    longer = 1 << (2 * length - 2).bit_length()
    with _disable_current_modes():
        squares = np.arange(length) ** 2 % (2 * length)
        chirp = _unit(squares * (-math.pi / length), torch.float64)
        around = torch.zeros(longer, dtype=torch.complex128)
        around[:length] = torch.complex(chirp.re, -chirp.im)
        around[longer - length + 1 :] = around[1:length].flip(0)
        spectrum = torch.view_as_real(torch.fft.fft(around) / longer)
        re, im = spectrum.unsqueeze(1).to(dtype).unbind(-1)
        column = Pair(chirp.re.unsqueeze(1).to(dtype), chirp.im.unsqueeze(1).to(dtype))
        return column, Pair(re.contiguous(), im.contiguous()), longer


@functools.lru_cache(maxsize=64)
def _mirrored(length: int, given: int, dtype: torch.dtype) -> Tensor:
    """How often each of the first elements is in the whole spectrum of a real signal [given, 1]"""
    with _disable_current_modes():
        count = torch.full((given, 1), 2, dtype=dtype)
        count[0] = 1
        if length % 2 == 0 and given > length // 2:
            count[length // 2] = 1
        return count


def _swapped(x: Pair) -> Pair:
    """i conj(x): the transform of this, swapped again, is the inverse without its factor."""
    return Pair(x.im, x.re)


def _each(x: Pair, function: Callable[[Tensor], Tensor]) -> Pair:
    return Pair(*(function(p) if isinstance(p, Tensor) else p for p in (x.re, x.im)))


def _shaped(x: Pair, *shape: int) -> Pair:
    return _each(x, lambda part: part.reshape(shape))


def _first(x: Pair, keep: int, dim: int = 1) -> Pair:
    return _each(x, lambda p: p if p.shape[dim] == keep else p.narrow(dim, 0, keep))


def _padded(x: Pair, length: int) -> Pair:
    """With zeros at the end of the middle dimension."""

    def padded(part: Tensor) -> Tensor:
        missing = length - part.shape[1]
        return torch.constant_pad_nd(part, [0, 0, 0, missing]) if missing else part

    return _each(x, padded)


def _tensor(x: Pair) -> Tensor:
    """One that tells shape and dtype."""
    return x.re if isinstance(x.re, Tensor) else x.im


def _product(table: Part, x: Part) -> Part:
    """[K, N] and [A, N, B] -> [A, K, B]"""
    if x.shape[2] == 1:
        return torch.mm(x.squeeze(2), table.t()).unsqueeze(2)
    return torch.bmm(table.expand(x.shape[0], *table.shape), x)


def _transform(x: Pair, length: int, keep: int) -> Pair:
    """The first `keep` of the transform along the middle of [A, N, B]; an x that ends earlier than
    at `length` is 0 from there on."""
    outer, given, inner = _tensor(x).shape
    p = _cost(length)[1]
    if p == length and length > _LONGEST_MATRIX:
        return _by_convolution(x, length, keep)
    if p == length:
        return bilinear(_product, _roots(length, keep, given, _tensor(x).dtype), x)
    q = length // p
    rows, blocks = -(-given // q), -(-keep // p)
    x = _shaped(_padded(x, rows * q), outer, rows, q * inner)
    x = _shaped(_transform(x, p, p), outer, p, q, inner)
    x = _shaped(_twiddled(x, length), outer * p, q, inner)
    x = _shaped(_transform(x, q, blocks), outer, p, blocks, inner)
    x = _shaped(_each(x, lambda part: part.transpose(1, 2)), outer, blocks * p, inner)
    return _first(x, keep)


def _twiddled(x: Pair, length: int) -> Pair:
    """[A, P, Q, B] times roots of unity"""
    _, p, q, _ = _tensor(x).shape
    return mul(x, _shaped(_roots(length, p, q, _tensor(x).dtype), p, q, 1))


def _by_convolution(x: Pair, length: int, keep: int) -> Pair:
    """n k = (n^2 + k^2 - (k - n)^2) / 2"""
    given, dtype = _tensor(x).shape[1], _tensor(x).dtype
    chirp, spectrum, longer = _chirp(length, dtype)
    x = _transform(mul(x, _first(chirp, given, 0)), longer, longer)
    x = _swapped(_transform(_swapped(mul(x, spectrum)), longer, keep))
    return mul(x, _first(chirp, keep, 0))


def _real_inverse(x: Pair, length: int) -> Part:
    """Without its factor, of the first half of a spectrum [A, K, B]: real [A, N, B].  It takes the
    steps of `_transform` backwards."""
    outer, given, inner = _tensor(x).shape
    given = min(given, length // 2 + 1)
    x = _swapped(mul(_first(x, given), _mirrored(length, given, _tensor(x).dtype)))
    p = _cost(length)[1]
    if p == length and length > _LONGEST_MATRIX:
        return _transform(x, length, length).im
    if p == length:
        return _imaginary(x, length)
    q = length // p
    blocks = -(-given // p)
    x = _shaped(_padded(x, blocks * p), outer, blocks, p * inner)
    x = _shaped(_transform(x, q, q), outer, q, p, inner)
    x = _twiddled(_each(x, lambda part: part.transpose(1, 2)), length)
    return _imaginary(_shaped(x, outer, p, q * inner), p).reshape(outer, length, inner)


def _imaginary(x: Pair, length: int) -> Part:
    """That of the transform."""
    table = _roots(length, length, _tensor(x).shape[1], _tensor(x).dtype)
    halves = ((table.im, x.re), (table.re, x.im))
    first, second = (_product(t, p) if isinstance(p, Tensor) else 0 for t, p in halves)
    return plus(first, second)


def _along(x: Pair, dim: int, function: Callable[[Pair], Pair]) -> Pair:
    """`function` of [A, N, B], where N is the extent of `dim`."""
    shape = _tensor(x).shape
    before, after = shape[:dim], shape[dim + 1 :]
    found = function(_shaped(x, math.prod(before), shape[dim], math.prod(after)))
    return _each(found, lambda part: part.reshape(*before, part.shape[1], *after))


def _factor(mode: int, sizes: Sequence[int]) -> float:
    """PyTorch's modes: none, by the root of the number of elements, by their number."""
    return (1.0, 1 / math.sqrt(math.prod(sizes)), 1 / math.prod(sizes))[mode]


def _scaled(x: Part, factor: float) -> Part:
    return x if factor == 1 else times(x, factor)


TRANSFORMS = frozenset({"aten._fft_r2c", "aten._fft_c2c", "aten._fft_c2r"})
"""Their rules are told, as `ends`, from where on x is 0 along each dimension."""


@rule("_fft_r2c")
def _r2c(x: Tensor, dims: Sequence[int], mode: int, onesided: bool, *, ends: Sequence[int]) -> Pair:
    *others, last = dims
    sizes = _sizes(x, dims)
    length = sizes.pop()
    keep = length // 2 + 1 if onesided else length
    found = _cut(Pair(x, 0), dims, ends)
    found = _along(found, last, lambda part: _transform(part, length, keep))
    factor = _factor(mode, [*sizes, length])
    return _each(_over(found, others, sizes), lambda part: _scaled(part, factor))


@rule("_fft_c2c")
def _c2c(x: Pair, dims: Sequence[int], mode: int, forward: bool, *, ends: Sequence[int]) -> Pair:
    sizes = _sizes(_tensor(x), dims)
    x = _cut(x, dims, ends)
    found = _over(x, dims, sizes) if forward else _swapped(_over(_swapped(x), dims, sizes))
    return _each(found, lambda part: _scaled(part, _factor(mode, sizes)))


@rule("_fft_c2r")
def _c2r(x: Pair, dims: Sequence[int], mode: int, length: int, *, ends: Sequence[int]) -> Part:
    *others, last = dims
    sizes = _sizes(_tensor(x), others)
    halves = _swapped(_over(_swapped(_cut(x, dims, ends)), others, sizes))
    found = _along(halves, last, lambda part: Pair(_real_inverse(part, length), 0))
    return _scaled(found.re, _factor(mode, [*sizes, length]))


def _sizes(x: Tensor, dims: Sequence[int]) -> list[int]:
    return [x.shape[dim] for dim in dims]


def _cut(x: Pair, dims: Sequence[int], ends: Sequence[int]) -> Pair:
    """Without the zeros at the ends: a transform knows its length."""
    for dim, end in zip(dims, ends, strict=True):
        x = _first(x, max(end, 1), dim)
    return x


def _over(x: Pair, dims: Sequence[int], sizes: Sequence[int]) -> Pair:
    """The transform along each dimension, to its size; the others are shorter until then."""
    for dim, size in zip(dims, sizes, strict=True):
        x = _along(x, dim, lambda part, n=size: _transform(part, n, n))
    return x
