"""What operators do to complex numbers, written as operators on their real and imaginary parts.

Each function is called while PyTorch's operators are recorded, with a `Pair` for every complex
tensor or number; a part that is 0 everywhere is the number 0.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor
Part = Any  # a real tensor, or a number


@dataclass(frozen=True, slots=True)
class Pair:
    """Complex numbers: `re` and `im` broadcast to their shape."""

    re: Part
    im: Part

    @property
    def number(self) -> complex | None:
        """Where it is one number and no tensor."""
        if isinstance(self.re, Tensor) or isinstance(self.im, Tensor):
            return None
        return complex(self.re, self.im)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
"""By the name of the operator without its overload."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update({f"{space}.{name}": function for name in names for space in ("aten", "prims")})
        return function

    return register


def pair(x: Any) -> Pair:
    return x if isinstance(x, Pair) else Pair(x, 0)


def parts(x: Pair) -> tuple[Part, Part]:
    return x.re, x.im


def _is_zero(x: Part) -> bool:
    return not isinstance(x, Tensor) and x == 0


def plus(x: Part, y: Part) -> Part:
    return y if _is_zero(x) else x if _is_zero(y) else x + y


def minus(x: Part, y: Part) -> Part:
    return x if _is_zero(y) else -y if _is_zero(x) else x - y


def times(x: Part, y: Part) -> Part:
    return 0 if _is_zero(x) or _is_zero(y) else x * y


def bilinear(function: Callable[[Any, Any], Part], x: Any, y: Any) -> Pair:
    """`function`, which is linear in both arguments, of complex ones."""
    a, b = pair(x), pair(y)

    def product(x: Part, y: Part) -> Part:
        return 0 if _is_zero(x) or _is_zero(y) else function(x, y)

    return Pair(
        minus(product(a.re, b.re), product(a.im, b.im)),
        plus(product(a.re, b.im), product(a.im, b.re)),
    )


@rule("add")
def add(x: Any, y: Any, alpha: Any = 1) -> Pair:
    a, b = pair(x), pair(y if alpha == 1 else mul(y, alpha))
    return Pair(plus(a.re, b.re), plus(a.im, b.im))


@rule("sub")
def sub(x: Any, y: Any, alpha: Any = 1) -> Pair:
    a, b = pair(x), pair(y if alpha == 1 else mul(y, alpha))
    return Pair(minus(a.re, b.re), minus(a.im, b.im))


@rule("mul")
def mul(x: Any, y: Any) -> Pair:
    return bilinear(times, x, y)


@rule("div")
def div(x: Any, y: Any) -> Pair:
    """x conj(y) / |y|^2, with y made smaller first by its larger part"""
    a, b = pair(x), pair(y)
    if b.number is not None and not _is_zero(b.im):
        return mul(a, _number(1 / b.number))
    if _is_zero(b.im):
        return Pair(a.re / b.re, 0 if _is_zero(a.im) else a.im / b.re)
    scale = torch.maximum(_abs_part(b.re, b.im), b.im.abs())
    c, d = b.re / scale, b.im / scale
    size = (c * c + d * d) * scale
    return Pair(
        plus(times(a.re, c), times(a.im, d)) / size, minus(times(a.im, c), times(a.re, d)) / size
    )


def _number(x: complex) -> Pair:
    return Pair(x.real, x.imag)


def _abs_part(x: Part, like: Tensor) -> Tensor:
    return x.abs() if isinstance(x, Tensor) else torch.full_like(like, abs(x))


@rule("reciprocal")
def reciprocal(x: Pair) -> Pair:
    return div(1, x)


@rule("conj_physical", "_conj_physical")
def conj(x: Pair) -> Pair:
    return Pair(x.re, minus(0, x.im))


@rule("abs")
def modulus(x: Pair) -> Part:
    if _is_zero(x.im):
        return x.re.abs()
    return x.im.abs() if _is_zero(x.re) else torch.hypot(x.re, x.im)


@rule("angle")
def angle(x: Pair) -> Part:
    re, im = tensors(x)
    return torch.atan2(im, re)


def tensors(x: Pair) -> tuple[Tensor, Tensor]:
    """Both parts, of one shape and dtype; a single number is 0-dimensional, in float64."""
    known = [part for part in (x.re, x.im) if isinstance(part, Tensor)]
    if not known:
        re, im = (torch.full((), part, dtype=torch.float64, device="meta") for part in (x.re, x.im))
        return re, im
    dtypes = {part.dtype for part in known}
    dtype = torch.float16 if dtypes == {torch.float16} else torch.float32
    if torch.float64 in dtypes:
        dtype = torch.float64
    shape = torch.broadcast_shapes(*(part.shape for part in known))

    def whole(part: Part) -> Tensor:
        if not isinstance(part, Tensor):
            return torch.full(shape, part, dtype=dtype, device="meta")
        return part.to(dtype).expand(shape)

    return whole(x.re), whole(x.im)


@rule("sgn")
def _sgn(x: Pair) -> Pair:
    """x / |x|, and 0 at 0"""
    size = modulus(x)
    safe = torch.where(size == 0, 1.0, size)
    return div(x, safe)


@rule("exp")
def exp(x: Pair) -> Pair:
    size = torch.exp(x.re) if isinstance(x.re, Tensor) else math.exp(x.re)
    if _is_zero(x.im):
        return Pair(size, 0)
    return Pair(size * torch.cos(x.im), size * torch.sin(x.im))


@rule("polar")
def _polar(size: Tensor, angle: Tensor) -> Pair:
    return Pair(size * torch.cos(angle), size * torch.sin(angle))


@rule("complex")
def _complex(re: Tensor, im: Tensor) -> Pair:
    return Pair(re, im)


@rule("log")
def log(x: Pair) -> Pair:
    return Pair(torch.log(modulus(x)), angle(x))


@rule("sqrt")
def sqrt(x: Pair) -> Pair:
    """The larger part is sqrt((|x| + |re|) / 2); the other follows from 2 re im' = im"""
    re, im = tensors(x)
    large = torch.sqrt((torch.hypot(re, im) + re.abs()) / 2)
    small = torch.where(large == 0, 0.0, im.abs() / (2 * torch.where(large == 0, 1.0, large)))
    right = re >= 0
    signed = torch.where(right, small, large)
    return Pair(torch.where(right, large, small), torch.where(im < 0, -signed, signed))


@rule("rsqrt")
def _rsqrt(x: Pair) -> Pair:
    return reciprocal(sqrt(x))


@rule("pow")
def power(x: Any, exponent: Any) -> Pair:
    """By products for a small whole exponent, else exp(exponent log x), and 0 for 0"""
    if isinstance(exponent, int | float) and exponent == int(exponent) and abs(exponent) <= 8:
        return _whole_power(x, int(exponent))
    if isinstance(exponent, float) and abs(exponent) == 0.5:
        return sqrt(x) if exponent > 0 else reciprocal(sqrt(x))
    base = pair(x)
    if base.number is not None:
        return exp(mul(exponent, _number(cmath.log(base.number))))
    found = exp(mul(exponent, log(base)))
    at_zero = modulus(base) == 0
    re, im = tensors(found)
    return Pair(torch.where(at_zero, 0.0, re), torch.where(at_zero, 0.0, im))


def _whole_power(x: Pair, exponent: int) -> Pair:
    if exponent < 0:
        return reciprocal(_whole_power(x, -exponent))
    if exponent == 0:
        return Pair(torch.ones_like(tensors(x)[0]), 0)
    half = _whole_power(x, exponent // 2) if exponent > 1 else pair(1)
    square = mul(half, half)
    return mul(square, x) if exponent % 2 else square


@rule("sin")
def _sin(x: Pair) -> Pair:
    re, im = tensors(x)
    return Pair(re.sin() * im.cosh(), re.cos() * im.sinh())


@rule("cos")
def _cos(x: Pair) -> Pair:
    re, im = tensors(x)
    return Pair(re.cos() * im.cosh(), -(re.sin() * im.sinh()))


@rule("sinh")
def _sinh(x: Pair) -> Pair:
    re, im = tensors(x)
    return Pair(re.sinh() * im.cos(), re.cosh() * im.sin())


@rule("cosh")
def _cosh(x: Pair) -> Pair:
    re, im = tensors(x)
    return Pair(re.cosh() * im.cos(), re.sinh() * im.sin())


@rule("tanh")
def _tanh(x: Pair) -> Pair:
    """(sinh 2a + i sin 2b) / (cosh 2a + cos 2b), both times 2 exp(-2 |a|)"""
    re, im = tensors(x)
    e = torch.exp(-2 * re.abs())
    below = 1 + e * e + 2 * e * torch.cos(2 * im)
    return Pair(torch.sign(re) * (1 - e * e) / below, 2 * e * torch.sin(2 * im) / below)


@rule("sigmoid")
def _sigmoid(x: Pair) -> Pair:
    return reciprocal(add(exp(sub(0, x)), 1))


@rule("eq")
def _eq(x: Any, y: Any) -> Tensor:
    a, b = pair(x), pair(y)
    return torch.logical_and(a.re == b.re, a.im == b.im)


@rule("ne")
def _ne(x: Any, y: Any) -> Tensor:
    return torch.logical_not(_eq(x, y))


@rule("isfinite")
def _isfinite(x: Pair) -> Tensor:
    return torch.logical_and(*(torch.isfinite(part) for part in tensors(x)))


@rule("isnan")
def _isnan(x: Pair) -> Tensor:
    return torch.logical_or(*(torch.isnan(part) for part in tensors(x)))


@rule("isinf")
def _isinf(x: Pair) -> Tensor:
    return torch.logical_or(*(torch.isinf(part) for part in tensors(x)))


@rule("var")
def _var(x: Pair, *args: Any, **options: Any) -> Tensor:
    re, im = tensors(x)
    return torch.var(re, *args, **options) + torch.var(im, *args, **options)


@rule("std")
def _std(x: Pair, *args: Any, **options: Any) -> Tensor:
    return torch.sqrt(_var(x, *args, **options))


@rule("mm", "bmm")
def _mm(x: Any, y: Any) -> Pair:
    return bilinear(torch.matmul, x, y)


@rule("mv", "dot")
def _dot(x: Any, y: Any) -> Pair:
    return bilinear(torch.matmul, x, y)


@rule("vdot")
def _vdot(x: Pair, y: Pair) -> Pair:
    return _dot(conj(x), y)


@rule("addmm", "baddbmm", "addmv")
def _addmm(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    product = bilinear(torch.matmul, x, y)
    product = product if alpha == 1 else mul(product, alpha)
    return product if beta == 0 else add(product, bias if beta == 1 else mul(bias, beta))


@rule("linalg_vector_norm")
def _vector_norm(x: Pair, *args: Any, **options: Any) -> Tensor:
    return torch.linalg.vector_norm(modulus(x), *args, **options)


@rule("native_dropout")
def _native_dropout(x: Pair, p: float, train: bool | None) -> tuple[Pair, Tensor]:
    kept, mask = torch.native_dropout(torch.ones_like(tensors(x)[0]), p, bool(train))
    return mul(x, kept), mask


@rule("_to_copy")
def _to_copy(x: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """A real one of a complex one is its real part."""
    if dtype is None:
        return x
    if not dtype.is_complex:
        return x.re.to(dtype)
    return Pair(*(p.to(dtype.to_real()) if isinstance(p, Tensor) else p for p in parts(pair(x))))


@rule("randn")
def _randn(size: Any, *, dtype: torch.dtype, **_: Any) -> Pair:
    """Variance 1 in all: 1/2 of each part"""
    re, im = (torch.randn(size, dtype=dtype.to_real(), device="meta") for _ in range(2))
    return Pair(re * math.sqrt(0.5), im * math.sqrt(0.5))


@rule("rand")
def _rand(size: Any, *, dtype: torch.dtype, **_: Any) -> Pair:
    re, im = (torch.rand(size, dtype=dtype.to_real(), device="meta") for _ in range(2))
    return Pair(re, im)
