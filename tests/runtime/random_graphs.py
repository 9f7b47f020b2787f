"""Random graphs for property tests.

All values are small integers held in floats, and every operation keeps them exact, so that results
can be compared bit by bit, in whatever order a compiler adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from batucada.ir.graph import Graph, Node, Output, Section, graph_of, input_node
from batucada.ir.types import DType, Type
from batucada.ops import make, origin
from batucada.ops.create import scalar
from batucada.ops.reduce import reduce
from batucada.ops.view import expand, permute, reshape

_EXACT = 2**20  # far below 2**24, from where float32 rounds integers
EXTENTS = st.sampled_from((1, 2, 3, 5, 8, 9, 17))
UNARY = ("neg", "abs", "sign")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
REDUCTIONS = ("sum", "amax", "amin")


@dataclass
class Builder:
    """Draws operations on values made so far; `bounds` holds the largest magnitude of each."""

    draw: st.DrawFn
    dtype: DType
    inputs: list[Node] = field(default_factory=list)
    values: list[Node] = field(default_factory=list)
    bounds: dict[Node, int] = field(default_factory=dict)

    def input(self, shape: tuple[int, ...], role: str = "input") -> Node:
        node = input_node(f"{role}{len(self.inputs)}", Type(self.dtype, shape), role)  # type: ignore[arg-type]
        self.inputs.append(node)
        return self.keep(node, 3)

    def keep(self, node: Node, bound: int) -> Node:
        """A value that would grow too large is clipped."""
        if bound > _EXACT:
            low = make("maximum", node, scalar(-7, self.dtype))
            node, bound = make("minimum", low, scalar(7, self.dtype)), 7
        self.values.append(node)
        self.bounds[node] = bound
        return node

    def any(self) -> Node:
        return self.draw(st.sampled_from(self.values))

    def grow(self) -> Node:
        kinds = (
            self._unary,
            self._binary,
            self._where,
            self._reduce,
            self._view,
            self._matmul,
            self._cat,
        )
        return self.draw(st.sampled_from(kinds))()

    def _unary(self) -> Node:
        x = self.any()
        return self.keep(make(self.draw(st.sampled_from(UNARY)), x), self.bounds[x])

    def partner(self, x: Node) -> Node:
        """A value that broadcasts with x: one that is there, a number, or an input made for it."""
        fits = [y for y in self.values if _fit(x, y)]
        choice = self.draw(st.integers(0, len(fits) + 1))
        if choice < len(fits):
            return fits[choice]
        if choice == len(fits):
            number = self.draw(st.integers(-2, 2))
            constant = scalar(number, self.dtype)
            self.bounds[constant] = abs(number)
            return constant
        keep = [self.draw(st.booleans()) for _ in x.type.shape]
        shape = tuple(s if k else 1 for s, k in zip(x.type.shape, keep, strict=True))
        return self.input(shape[self.draw(st.integers(0, len(shape))) :])

    def _binary(self) -> Node:
        x, op = self.any(), self.draw(st.sampled_from(BINARY))
        y = self.partner(x)
        a, b = self.bounds[x], self.bounds[y]
        bound = a * b if op == "mul" else a + b if op in ("add", "sub") else max(a, b)
        pair = (x, y) if self.draw(st.booleans()) else (y, x)
        return self.keep(make(op, *pair), bound)

    def _where(self) -> Node:
        x = self.any()
        condition = make("lt", x, self.partner(x))
        z = self.partner(condition)
        return self.keep(make("where", condition, x, z), max(self.bounds[x], self.bounds[z]))

    def _reduce(self) -> Node:
        x, op = self.any(), self.draw(st.sampled_from(REDUCTIONS))
        rank = len(x.type.shape)
        dims = (
            self.draw(st.lists(st.integers(0, rank - 1), max_size=rank, unique=True))
            if rank
            else []
        )
        out = reduce(op, x, dims or None, self.draw(st.booleans()))
        grown = x.type.size // max(out.type.size, 1) if op == "sum" else 1
        return self.keep(out, self.bounds[x] * grown)

    def _view(self) -> Node:
        x = self.any()
        kind = self.draw(st.sampled_from(("reshape", "permute", "expand", "slice", "flip")))
        return self.keep(self._viewed(kind, x), self.bounds[x])

    def _viewed(self, kind: str, x: Node) -> Node:
        shape, rank = x.type.shape, len(x.type.shape)
        if kind == "reshape" or not rank:
            return reshape(x, self.draw(st.sampled_from(_refactored(shape))))
        if kind == "permute":
            return permute(x, self.draw(st.permutations(range(rank))))
        if kind == "expand":
            wide = tuple(self.draw(EXTENTS) if s == 1 else s for s in shape)
            return expand(x, wide)
        dim = self.draw(st.integers(0, rank - 1))
        if kind == "flip":
            return make("flip", x, dims=(dim,))
        start = self.draw(st.integers(0, shape[dim] - 1))
        stop = self.draw(st.integers(start + 1, shape[dim]))
        return make("slice", x, dim=dim, start=start, stop=stop, step=self.draw(st.integers(1, 3)))

    def _matmul(self) -> Node:
        matrices = [x for x in self.values if len(x.type.shape) >= 2]
        if not matrices:
            return self._unary()
        a = self.draw(st.sampled_from(matrices))
        k = a.type.shape[-1]
        fits = [b for b in matrices if b.type.shape[-2] == k and len(b.type.shape) == 2]
        choice = self.draw(st.integers(0, len(fits)))
        b = fits[choice] if choice < len(fits) else self.input((k, self.draw(EXTENTS)))
        return self.keep(make("matmul", a, b), self.bounds[a] * self.bounds[b] * k)

    def _cat(self) -> Node:
        x = self.any()
        if not x.type.shape:
            return self._unary()
        dim = self.draw(st.integers(0, len(x.type.shape) - 1))
        rest = x.type.shape[:dim] + x.type.shape[dim + 1 :]
        same = [
            y
            for y in self.values
            if len(y.type.shape) == len(x.type.shape)
            and y.type.shape[:dim] + y.type.shape[dim + 1 :] == rest
        ]
        y = self.draw(st.sampled_from(same))
        return self.keep(make("cat", x, y, dim=dim), max(self.bounds[x], self.bounds[y]))


def _fit(x: Node, y: Node) -> bool:
    try:
        out = np.broadcast_shapes(x.type.shape, y.type.shape)
    except ValueError:
        return False
    return int(np.prod(out)) <= 4000


def _refactored(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of as many elements: flat, with and without ones, split or merged at one place."""
    size = int(np.prod(shape))
    found = [(size,), (1, *shape), (*shape, 1), tuple(s for s in shape if s != 1), shape[::-1]]
    for i in range(len(shape) - 1):
        found.append((*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]))
    for i, extent in enumerate(shape):
        found += [(*shape[:i], f, extent // f, *shape[i + 1 :]) for f in (2, 3) if extent % f == 0]
    return found


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """One section, one to three outputs, some of them inputs or views or the same value."""
    builder = Builder(draw, draw(st.sampled_from(("f32", "f64"))))
    for _ in range(draw(st.integers(1, 2))):
        builder.input(tuple(draw(st.lists(EXTENTS, max_size=3))))
    for _ in range(draw(st.integers(1, 10))):
        builder.grow()
    nodes = [builder.values[-1], *(builder.any() for _ in range(draw(st.integers(0, 2))))]
    outputs = [Output(f"out{i}", "output", node) for i, node in enumerate(nodes)]
    return graph_of("random", builder.inputs, outputs)


@st.composite
def training_steps(draw: st.DrawFn) -> Graph:
    """A chain of products and maps, its gradients and updates: FWD, BCKWD and OPT."""
    builder = Builder(draw, "f32")
    x = builder.input((draw(EXTENTS), draw(EXTENTS)))
    rate = builder.input((), "hyper")
    layers: list[tuple[Node, Node]] = []
    for _ in range(draw(st.integers(1, 3))):
        weight = builder.input((x.type.shape[1], draw(EXTENTS)), "parameter")
        layers.append((x, weight))
        product = make("matmul", x, weight)
        x = builder.keep(product, 3 * builder.bounds[x] * weight.type.shape[0])
        x = _mapped(builder, x, "FWD")
    outputs = [Output("out", "output", x)]
    gradient = builder.keep(make("sign", x), 1)
    for below, weight in reversed(layers):
        outputs += _backward(builder, below, weight, gradient, rate)
        with origin("", "BCKWD"):
            product = make("matmul", gradient, permute(weight, (1, 0)))
            gradient = builder.keep(product, builder.bounds[gradient] * 3 * weight.type.shape[1])
        gradient = _mapped(builder, gradient, "BCKWD")
    return graph_of("step", builder.inputs, outputs)


def _mapped(builder: Builder, x: Node, section: Section) -> Node:
    with origin("", section):
        kind = builder.draw(st.sampled_from(("none", "relu", "bias", "row", "shared")))
        if kind == "relu":
            return builder.keep(make("maximum", x, scalar(0, "f32")), builder.bounds[x])
        if kind == "bias" and section == "FWD":
            bias = builder.input(x.type.shape[1:], "buffer")
            return builder.keep(make("add", x, bias), builder.bounds[x] + 3)
        if kind == "row":
            largest = reduce("amax", x, 1)
            return builder.keep(make("sub", x, largest), 2 * builder.bounds[x])
        if kind == "shared":
            return builder.keep(make("mul", make("sign", x), x), builder.bounds[x])
    return x


def _backward(
    builder: Builder, below: Node, weight: Node, gradient: Node, rate: Node
) -> list[Output]:
    """The weight's gradient and its update, with or without momentum and decay."""
    with origin("", "BCKWD"):
        product = make("matmul", permute(below, (1, 0)), gradient)
        bound = builder.bounds[below] * builder.bounds[gradient] * below.type.shape[0]
        made = builder.keep(product, bound)
    outputs = [Output(weight.name, "gradient", made)]
    with origin("", "OPT"):
        step = made
        if builder.draw(st.booleans()):
            step = make("add", step, make("mul", rate, weight))
        if builder.draw(st.booleans()):
            memory = builder.input(weight.type.shape, "state")
            step = make("add", step, make("mul", rate, memory))
            outputs.append(Output(memory.name, "update", step))
        outputs.append(Output(weight.name, "update", make("sub", weight, make("mul", rate, step))))
    return outputs


def values_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Integers from -3 to 3 for every input."""
    random = np.random.default_rng(seed)
    dtypes = {"f32": np.float32, "f64": np.float64}
    return {
        node.name: random.integers(-3, 4, node.type.shape).astype(dtypes[node.type.dtype])
        for node in graph.inputs
    }
