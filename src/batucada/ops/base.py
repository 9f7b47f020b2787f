"""What the compiler knows of an operation, in one record, and the tables that find it.

`OPS` holds the operations a graph may contain.  `ATEN` holds the translations: a PyTorch operator's
name to a function that builds those operations.  An operation that PyTorch has under the same
meaning names its aten overloads in its own record; an aten operator that takes several of ours is a
function marked `@translates`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np

from batucada.ir.graph import Attr, Node, Section
from batucada.ir.types import DType, Shape, Type

Kind = Literal[
    "input", "map", "view", "lookup", "create", "reduce", "contract", "index", "attention", "host"
]  # fmt: skip
Translation = Callable[..., Any]
V = TypeVar("V")

NUMPY: dict[DType, Any] = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": np.float32, "i64": np.int64,
    "i32": np.int32, "i16": np.int16, "i8": np.int8, "u8": np.uint8, "bool": np.bool_,
}  # fmt: skip
"""The dtype the oracle computes with; bf16 is held in float32 there."""


class TypeRuleError(TypeError):
    """Arguments whose shapes, dtypes or attributes an operation does not take."""


@dataclass(frozen=True, slots=True)
class Op:
    """`infer` gives the result's type, `ref` the meaning in numpy, `flops` the cost of one call;
    `cost`, of types and attributes, where no rule holds for the kind.
    """

    name: str
    kind: Kind
    infer: Callable[..., Type]
    ref: Callable[..., np.ndarray]
    flops_per_element: int = 1
    cost: Callable[..., int] | None = None

    def flops(self, out: Type, *args: Type, **attrs: Attr) -> int:
        if self.cost is not None:
            return self.cost(out, *args, **attrs)
        if self.name == "contract":
            return 2 * args[0].size * args[1].shape[-1]
        if self.kind == "contract":
            return 2 * out.size * args[0].shape[-1]
        if self.kind == "reduce":
            return args[0].size
        return out.size * self.flops_per_element if self.kind == "map" else 0


MODULES = (
    "elementwise", "view", "arithmetic", "create", "reduce", "contract", "random", "activation",
    "norm", "loss", "embedding", "attention", "index", "scatter_views", "scatter", "window",
    "border", "conv", "pool", "adaptive_pool", "scan", "primitives", "host", "collective",
    "strided", "resample", "sort", "grouped", "distance", "margin", "distributions", "histogram",
    "embedding_bag", "ctc",
)  # fmt: skip
"""The modules of this package that fill the tables, those that most programs use first."""


class Table(dict[str, V]):
    """Filled by the modules: what is looked up is imported, so that a process that runs a program
    holds the operations of that program only.
    """

    def __missing__(self, name: str) -> V:
        for module in MODULES:
            importlib.import_module(f"batucada.ops.{module}")
            if super().__contains__(name):
                return self[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def get(self, name: Any, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def enter(self, name: str, value: V) -> None:
        """ValueError when the name is taken."""
        if super().__contains__(name):
            raise ValueError(f"{name} is defined twice")
        self[name] = value

    def whole(self) -> dict[str, V]:
        """Everything there is."""
        self.get("")
        return dict(self)


OPS: Table[Op] = Table()
ATEN: Table[Translation] = Table()


CLOSED: frozenset[Kind] = frozenset({"index", "attention", "host"})
"""Kinds whose operations are a stage by themselves: nothing joins it."""

STANDALONE: frozenset[Kind] = frozenset({"index", "attention", "host", "contract"})
"""Kinds whose operations start a stage of their own."""


def define(op: Op) -> Op:
    OPS.enter(op.name, op)
    return op


def translates(*names: str) -> Callable[[Translation], Translation]:
    """Mark a function as the translation of these aten overloads, e.g. `aten.addmm.default`."""

    def register(function: Translation) -> Translation:
        for name in names:
            ATEN.enter(name, function)
        return function

    return register


class Origin:
    """Where the nodes come from that are made in its `with`: the user's `file:line` and the section
    of the program."""

    __slots__ = ("section", "src")
    src: str
    section: Section

    def __init__(self, src: str, section: Section) -> None:
        self.src, self.section = src, section

    def __enter__(self) -> None:
        _origins.append(self)

    def __exit__(self, *_: object) -> None:
        _origins.pop()


_origins: list[Origin] = [Origin("", "FWD")]


def origin(src: str = "", section: Section = "FWD") -> Origin:
    return Origin(src, section)


def like(node: Node) -> Origin:
    """The origin of `node`, for what replaces it."""
    return Origin(node.src, node.section)


def make(name: str, *args: Node, **attrs: Attr) -> Node:
    """A new node; its type is inferred.  TypeRuleError when the arguments do not fit."""
    out = OPS[name].infer(*[arg.type for arg in args], **attrs)
    where = _origins[-1]
    return Node(name, args, out, tuple(attrs.items()), where.src, where.section)


_OF_A_RESULT = frozenset({"result", "dtype", "shape", "flops"})


def call_key(node: Node) -> tuple[Any, ...] | None:
    """Equal for the results of one call: an operation with several results is several nodes that
    differ in `result`, the place among the results, and what belongs to it.  None for others.
    """
    if not any(name == "result" for name, _ in node.attrs):
        return None
    rest = tuple((name, value) for name, value in node.attrs if name not in _OF_A_RESULT)
    return node.op, rest, node.args, node.section


def with_args(node: Node, args: Sequence[Node]) -> Node:
    """The same operation on other arguments of the same types."""
    given = tuple(args)
    if given == node.args:
        return node
    return Node(node.op, given, node.type, node.attrs, node.src, node.section)


def broadcast(*shapes: Shape) -> Shape:
    out = shapes[0] if shapes else ()
    for shape in shapes[1:]:
        if shape != out:
            out = _broadcast_pair(out, shape)
    return out


@lru_cache(maxsize=4096)
def _broadcast_pair(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True))
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise TypeRuleError(f"shapes {a} and {b} do not broadcast")
    return tuple(n if m == 1 else m for m, n in pairs)


def normal_dim(dim: int, rank: int) -> int:
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise TypeRuleError(f"dimension {dim} is out of range for {rank} dimensions")
    return dim % max(rank, 1)


def normal_dims(dims: Sequence[int] | int | None, rank: int) -> tuple[int, ...]:
    """Sorted, non-negative; all of them for None or an empty list."""
    if isinstance(dims, int):
        dims = (dims,)
    if not dims:
        return tuple(range(rank))
    return tuple(sorted({normal_dim(dim, rank) for dim in dims})) if rank else ()
