"""Operators that draw random numbers: from a counter, so that every machine and every number of
threads gives the same bits.

Element i of what the n-th random operator of the program draws in run r under seed s is the word
that Philox 2x32-10 (Salmon et al., SC'11) gives for the counter (i, h) under the key k, where h and
k are words of Philox, too, for n, r and s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batucada.ir.graph import Node, input_node
from batucada.ir.types import DType, Shape, Type
from batucada.ops.base import Op, TypeRuleError, broadcast, define, make, origin, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast, of_loops
from batucada.ops.view import reshape

SEED, RUN = "random__seed", "random__run"
"""The symbols of the generator: i64 scalars that stay from run to run."""

_BITS: dict[DType, int] = {"f32": 24, "bf16": 8, "f16": 11}


def _i32(*args: Type) -> Type:
    if any(arg.dtype != "i32" for arg in args):
        raise TypeRuleError(f"philox needs i32, not {', '.join(map(str, args))}")
    return Type("i32", broadcast(*(arg.shape for arg in args)))


_philox = of_loops("philox")
define(
    Op("philox", "map", _i32, lambda *a: _philox(*np.broadcast_arrays(*a)), flops_per_element=60)
)


@dataclass
class Generator:
    """What a program's random operators share.  `label` names the module that draws at the moment;
    `rates` are the drop rates, run-time values, by symbol with the compile-time value.
    """

    label: Callable[[], str]
    rates: dict[str, tuple[Node, float]] = field(default_factory=dict)
    scales: dict[Node, Node] = field(default_factory=dict)  # a mask -> 1 / (1 - rate)
    state: tuple[Node, ...] = ()
    run: Node | None = None  # the number of this run, from 1: what RUN holds when it has begun
    position: int = 0  # how many random operators there were before the next
    _halves: tuple[Node, ...] = ()
    _most: int = 0  # the furthest position
    _rate_at: dict[int, Node] = field(default_factory=dict)

    def go_to(self, position: int) -> None:
        """Draw again what was drawn from there on, at the same rates."""
        self.position = position

    def stream(self) -> tuple[Node, Node]:
        """(key, high word of the counter) of one more random operator, each i32[]"""
        if not self._halves:
            self._start()
        seed_high, *runs = self._halves
        number = self.position
        self.position += 1
        key, high = (
            make("philox", run, scalar(2 * number + i, "i32"), seed_high)
            for i, run in enumerate(runs)
        )
        if key.section != "FWD" and number >= self._most:
            raise TypeRuleError("random numbers in the backward pass that the forward did not draw")
        self._most = max(self._most, self.position)
        return key, high

    def _start(self) -> None:
        with origin("", "FWD"):
            seed, run = (input_node(name, Type("i64"), "state") for name in (SEED, RUN))
            self.state = (seed, run)
            self.run = make("add", run, scalar(1, "i64"))
            seed_low, seed_high = _words_of(seed)
            low, high = _words_of(self.run)
            other = make("xor", high, scalar(0x5EED, "i32"))
            one, two = (make("philox", low, word, seed_low) for word in (high, other))
            self._halves = (seed_high, one, two)

    def rate(self, p: float) -> Node:
        """The drop rate at this place, f32[]"""
        if not 0 <= p <= 1:
            raise TypeRuleError(f"a drop rate is in 0..1, not {p}")
        if self.position in self._rate_at:
            return self._rate_at[self.position]
        label = self.label()
        base = label if "dropout" in label else f"{label}__dropout"
        name = f"{base}__p"
        number = 1
        while name in self.rates:
            name, number = f"{base}__{number}__p", number + 1
        node = input_node(name, Type("f32"), "hyper")
        self.rates[name] = (node, p)
        self._rate_at[self.position] = node
        return node


def _words_of(x: Node) -> tuple[Node, Node]:
    """The low and the high half of an i64, each i32"""
    return cast(x, "i32"), cast(make("floor_div", x, scalar(2**32, "i64")), "i32")


_generators: list[Generator] = []


@contextmanager
def drawing(generator: Generator) -> Iterator[None]:
    """Random operators that are translated inside draw from `generator`."""
    _generators.append(generator)
    try:
        yield
    finally:
        _generators.pop()


def words(shape: Shape) -> Node:
    """32 random bits an element, i32"""
    size = math.prod(shape)
    if size >= 2**31:
        raise TypeRuleError(f"{size} random numbers at once; at most 2^31 - 1 can be drawn")
    key, high = _generators[-1].stream()
    index = reshape(cast(make("iota", size=size), "i32"), shape)
    return make("philox", index, high, key)


def _fraction(shape: Shape, bits: int, dtype: DType) -> Node:
    """k / 2^bits for a random k of 0..2^bits - 1"""
    word = make("and", words(shape), scalar(2**bits - 1, "i32"))
    return make("mul", cast(word, dtype), scalar(2.0**-bits, dtype))


def uniform(shape: Shape, dtype: DType) -> Node:
    """Numbers in [0, 1) with as many random bits as `dtype` has digits."""
    if dtype == "f64":
        fine = make("mul", _fraction(shape, 22, "f64"), scalar(2.0**-31, "f64"))
        return make("add", _fraction(shape, 31, "f64"), fine)
    return cast(_fraction(shape, _BITS.get(dtype, 24), "f32"), dtype)


def normal(shape: Shape, dtype: DType) -> Node:
    """sqrt(-2 log(1 - u)) cos(2 pi v) for uniform u and v (Box and Muller 1958)"""
    wide: DType = "f64" if dtype == "f64" else "f32"
    radius = make("sqrt", make("mul", scalar(-2.0, wide), log_uniform(shape, wide)))
    angle = make("mul", scalar(2 * math.pi, wide), uniform(shape, wide))
    return cast(make("mul", radius, make("cos", angle)), dtype)


def log_uniform(shape: Shape, dtype: DType) -> Node:
    """log of a uniform number in (0, 1]"""
    return make("log", make("sub", scalar(1.0, dtype), uniform(shape, dtype)))


def integers(shape: Shape, low: int, high: int, dtype: DType) -> Node:
    """low + (word * (high - low)) >> 32, from 63 bits where the range is that large"""
    span = high - low
    if span < 1:
        raise TypeRuleError(f"random integers from {low} to {high}, which leaves none")
    positive = make("and", cast(words(shape), "i64"), scalar(2**32 - 1, "i64"))
    if span < 2**31:
        scaled = make("mul", positive, scalar(span, "i64"))
        found = make("floor_div", scaled, scalar(2**32, "i64"))
    else:
        upper = make("and", cast(words(shape), "i64"), scalar(2**31 - 1, "i64"))
        word = make("add", make("mul", upper, scalar(2**32, "i64")), positive)
        found = make("remainder", word, scalar(span, "i64")) if span < 2**63 else word
    return cast(make("add", found, scalar(low, "i64")) if low else found, dtype)


# ---- dropout


@translates("aten.native_dropout.default")
def _native_dropout(x: Node, p: float, train: bool | None) -> tuple[Node, Node]:
    """x / (1 - p) where a uniform number is at least p, else 0; and where that is"""
    if not train:
        return x, full(x.type.shape, True, "bool")
    rate = _generators[-1].rate(p)
    keep = make("ge", uniform(x.type.shape, "f32"), rate)
    scale = make("reciprocal", make("sub", scalar(1.0, "f32"), rate))
    _generators[-1].scales[keep] = scale
    return _kept(x, keep, scale), keep


@translates("aten.native_dropout_backward.default")
def _native_dropout_backward(grad: Node, mask: Node, scale: float) -> Node:
    known = _generators[-1].scales.get(mask)
    return _kept(grad, mask, scalar(scale, "f32") if known is None else known)


def _kept(x: Node, keep: Node, scale: Node) -> Node:
    wide: DType = "f64" if x.type.dtype == "f64" else "f32"
    scaled = make("mul", cast(x, wide), cast(scale, wide))
    return make("where", keep, cast(scaled, x.type.dtype), scalar(0, x.type.dtype))


# ---- rrelu in evaluation; in training it is a uniform number's product (capture.randomness)


def _slope(x: Node, lower: float, upper: float, training: bool) -> Node:
    """(lower + upper) / 2"""
    if training:
        raise TypeRuleError("rrelu_with_noise in training; use torch.nn.functional.rrelu")
    return scalar((lower + upper) / 2, x.type.dtype)


@translates("aten.rrelu_with_noise.default")
def _rrelu(
    x: Node, noise: Node, lower: Any = 1 / 8, upper: Any = 1 / 3, training: bool = False, *_: Any
) -> Node:
    slope = _slope(x, lower, upper, training)
    return make("where", make("gt", x, scalar(0, x.type.dtype)), x, make("mul", x, slope))


@translates("aten.rrelu_with_noise_backward.default")
def _rrelu_backward(
    grad: Node, x: Node, noise: Node, lower: Any, upper: Any, training: bool, *_: Any
) -> Node:
    slope = _slope(x, lower, upper, training)
    return make("where", make("gt", x, scalar(0, x.type.dtype)), grad, make("mul", grad, slope))
