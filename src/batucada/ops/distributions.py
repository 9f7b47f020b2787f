"""Operators that draw from a distribution, by the words of `ops.random`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from batucada.ir.graph import Node
from batucada.ir.types import DType, Shape
from batucada.ops.base import ATEN, TypeRuleError, broadcast, make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.random import integers, log_uniform, normal, uniform, words
from batucada.ops.view import expand, reshape

OWN_GENERATOR = "a torch.Generator of the model's own cannot be compiled; leave it out"


def refuse_own(generator: Any) -> None:
    if generator is not None:
        raise TypeRuleError(OWN_GENERATOR)


def _creates(draw: Callable[[Shape, DType], Node]) -> Callable[..., Node]:
    def translate(size: Any, *_: Any, dtype: Any = None, generator: Any = None, **__: Any) -> Node:
        refuse_own(generator)
        return draw(tuple(size), dtype or "f32")

    return translate


def _like(draw: Callable[[Shape, DType], Node]) -> Callable[..., Node]:
    def translate(x: Node, *_: Any, dtype: Any = None, generator: Any = None, **__: Any) -> Node:
        refuse_own(generator)
        return draw(x.type.shape, dtype or x.type.dtype)

    return translate


for _name, _draw in {"rand": uniform, "randn": normal}.items():
    ATEN[f"aten.{_name}.default"] = ATEN[f"aten.{_name}.generator"] = _creates(_draw)
    ATEN[f"aten.{_name}_like.default"] = _like(_draw)


def _filled(x: Node, generator: Any, make_wide: Callable[[Shape, DType], Node]) -> Node:
    """A tensor like x, computed in f32 or f64."""
    refuse_own(generator)
    wide: DType = "f64" if x.type.dtype == "f64" else "f32"
    return cast(make_wide(x.type.shape, wide), x.type.dtype)


def _scaled(x: Node, factor: Any, offset: Any) -> Node:
    """x * factor + offset, in the dtype of x"""

    def operand(value: Any) -> Node:
        dtype = x.type.dtype
        return cast(value, dtype) if isinstance(value, Node) else scalar(value, dtype)

    return make("add", make("mul", x, operand(factor)), operand(offset))


@translates("aten.uniform.default")
def _uniform(x: Node, *bounds: float, generator: Any = None, **named: float) -> Node:
    """low + (high - low) u"""
    low, high = (*bounds, *(0.0, 1.0)[len(bounds) :])
    low, high = named.get("from", low), named.get("to", high)
    return _filled(x, generator, lambda s, t: _scaled(uniform(s, t), high - low, low))


@translates("aten.normal.default", "aten.normal_functional.default")
def _normal(x: Node, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Node:
    return _filled(x, generator, lambda s, t: _scaled(normal(s, t), std, mean))


@translates("aten.normal.Tensor_Tensor", "aten.normal.Tensor_float", "aten.normal.float_Tensor")
def _normal_around(mean: Any, std: Any = 1.0, *, generator: Any = None) -> Node:
    refuse_own(generator)
    given = [value for value in (mean, std) if isinstance(value, Node)]
    shape = broadcast(*(node.type.shape for node in given))
    return _scaled(normal(shape, given[0].type.dtype), std, mean)


@translates("aten.normal.float_float")
def _normal_of_size(
    mean: float, std: float, size: Any, *, dtype: Any = None, generator: Any = None, **_: Any
) -> Node:
    refuse_own(generator)
    return _scaled(normal(tuple(size), dtype or "f32"), std, mean)


@translates("aten.log_normal.default")
def _log_normal(x: Node, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Node:
    return _filled(x, generator, lambda s, t: make("exp", _scaled(normal(s, t), std, mean)))


@translates("aten.exponential.default")
def _exponential(x: Node, lambd: float = 1.0, *, generator: Any = None) -> Node:
    """-log(1 - u) / lambda"""
    return _filled(x, generator, lambda s, t: _scaled(log_uniform(s, t), -1 / lambd, 0.0))


@translates("aten.cauchy.default")
def _cauchy(x: Node, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Node:
    """median + sigma tan(pi (u - 1/2))"""

    def draw(shape: Shape, dtype: DType) -> Node:
        angle = _scaled(uniform(shape, dtype), math.pi, -math.pi / 2)
        return _scaled(make("tan", angle), sigma, median)

    return _filled(x, generator, draw)


@translates("aten.geometric.default")
def _geometric(x: Node, p: float, *, generator: Any = None) -> Node:
    """ceil(log(u) / log(1 - p)), at least 1"""

    def draw(shape: Shape, dtype: DType) -> Node:
        if p == 1:
            return full(shape, 1.0, dtype)
        trials = make("ceil", _scaled(log_uniform(shape, dtype), 1 / math.log1p(-p), 0.0))
        return make("maximum", trials, scalar(1.0, dtype))

    return _filled(x, generator, draw)


@translates("aten.bernoulli.default")
def _bernoulli(x: Node, *, generator: Any = None) -> Node:
    return _trial(x, x, generator)


@translates("aten.bernoulli.p", "aten.bernoulli.float", "aten.bernoulli.Tensor")
def _bernoulli_with(x: Node, p: Any = 0.5, *, generator: Any = None) -> Node:
    return _trial(x, p, generator)


def _trial(x: Node, p: Any, generator: Any) -> Node:
    """1 where a uniform number is below p, else 0, like x"""
    refuse_own(generator)
    chance = cast(p, "f32") if isinstance(p, Node) else scalar(p, "f32")
    return cast(make("lt", uniform(x.type.shape, "f32"), chance), x.type.dtype)


_LIMITS: dict[DType, int] = {
    "f64": 2**53, "f32": 2**24, "bf16": 2**8, "f16": 2**11, "i64": 2**63, "i32": 2**31,
    "i16": 2**15, "i8": 2**7, "u8": 2**8, "bool": 2,
}  # fmt: skip
"""One more than the largest number that `random_()` draws."""


@translates("aten.random.default")
def _random(x: Node, *, generator: Any = None) -> Node:
    return _random_between(x, 0, _LIMITS[x.type.dtype], generator=generator)


@translates("aten.random.to")
def _random_below(x: Node, to: int, *, generator: Any = None) -> Node:
    return _random_between(x, 0, to, generator=generator)


@translates("aten.random.from")
def _random_between(x: Node, low: int, high: int | None, *, generator: Any = None) -> Node:
    refuse_own(generator)
    end = _LIMITS[x.type.dtype] if high is None else high
    return integers(x.type.shape, low, end, x.type.dtype)


@translates("aten.randint.default", "aten.randint.generator")
def _randint(high: int, size: Any, *, dtype: Any = None, **options: Any) -> Node:
    return _randint_from(0, high, size, dtype=dtype, **options)


@translates("aten.randint.low", "aten.randint.low_generator")
def _randint_from(
    low: int, high: int, size: Any, *, dtype: Any = None, generator: Any = None, **_: Any
) -> Node:
    refuse_own(generator)
    return integers(tuple(size), low, high, dtype or "i64")


@translates("aten.randint_like.default", "aten.randint_like.low_dtype")
def _randint_like(x: Node, *bounds: int, dtype: Any = None, **_: Any) -> Node:
    low, high = bounds if len(bounds) == 2 else (0, bounds[0])
    return integers(x.type.shape, low, high, dtype or x.type.dtype)


@translates("aten.multinomial.default")
def _multinomial(
    x: Node, samples: int, replacement: bool = False, *, generator: Any = None
) -> Node:
    """argmax of log(x) - log(-log(u)) (Gumbel 1954), each sample for itself, or the greatest of it,
    whose order is that of draws one after the other (Efraimidis and Spirakis 2006)
    """
    refuse_own(generator)
    *rows, classes = x.type.shape
    races = samples if replacement else 1
    if samples // races > classes:
        raise TypeRuleError(f"multinomial: {samples} samples of {classes} without replacement")
    shape = (*rows, races, classes)
    chance = expand(reshape(cast(x, "f32"), (*rows, 1, classes)), shape)
    noise = make("neg", log_uniform(shape, "f32"))  # log(x / noise) is in the same order
    noise = make("maximum", noise, scalar(2.0**-26, "f32"))
    _, picked = ATEN["aten.topk.default"](make("div", chance, noise), samples // races, -1)
    return reshape(picked, (*rows, samples))


@translates("aten.randperm.default", "aten.randperm.generator")
def _randperm(n: int, *, dtype: Any = None, generator: Any = None, **_: Any) -> Node:
    """The order of n random words"""
    refuse_own(generator)
    return cast(make("argsort", words((n,)), descending=False), dtype or "i64")
