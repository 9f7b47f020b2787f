"""What the rule of an optimizer is written in: one parameter's update, and arithmetic on nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from batucada.ir.graph import Attr, Node
from batucada.ir.types import DType, Shape
from batucada.ops import make
from batucada.ops.reduce import reduce
from batucada.ops.view import permute


class Scalars:
    """Scalars that an optimizer computes from its hyperparameters and its step count: the same for
    many parameters, they are made once.
    """

    def __init__(self) -> None:
        self._known: dict[object, Node] = {}

    def make(self, op: str, *args: Node, **attrs: Attr) -> Node:
        if any(arg.type.shape for arg in args):
            return make(op, *args, **attrs)
        key = (op, args, repr(attrs))  # 1, 1.0 and True are equal in Python
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = make(op, *args, **attrs)
        return known


@dataclass(frozen=True, slots=True)
class Value:
    """A node with the operators of arithmetic; a number takes the dtype of the other side."""

    node: Node
    scalars: Scalars

    def _join(self, op: str, other: Value | float) -> Value:
        return self._made(op, self.node, self._operand(other))

    def _made(self, op: str, *args: Node, **attrs: Attr) -> Value:
        return Value(self.scalars.make(op, *args, **attrs), self.scalars)

    def _operand(self, other: Value | float) -> Node:
        return other.node if isinstance(other, Value) else self.constant(other).node

    def constant(self, number: float) -> Value:
        """In this value's dtype."""
        return self._made("constant", value=float(number), dtype=self.node.type.dtype)

    def __add__(self, other: Value | float) -> Value:
        return self._join("add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._join("sub", other)

    def __rsub__(self, other: float) -> Value:
        return self._made("sub", self._operand(other), self.node)

    def __mul__(self, other: Value | float) -> Value:
        return self._join("mul", other)

    def __rmul__(self, other: float) -> Value:
        return self._made("mul", self._operand(other), self.node)

    def __truediv__(self, other: Value | float) -> Value:
        return self._join("div", other)

    def __pow__(self, exponent: float) -> Value:
        return self._join("pow", exponent)

    def __radd__(self, other: float) -> Value:
        return self._made("add", self._operand(other), self.node)

    def __rtruediv__(self, other: float) -> Value:
        return self._made("div", self._operand(other), self.node)

    def __rpow__(self, base: float) -> Value:
        return self._made("pow", self._operand(base), self.node)

    def __le__(self, other: Value | float) -> Value:
        return self._join("le", other)

    def __lt__(self, other: Value | float) -> Value:
        return self._join("lt", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._join("gt", other)

    def maximum(self, other: Value | float) -> Value:
        return self._join("maximum", other)

    def minimum(self, other: Value | float) -> Value:
        return self._join("minimum", other)

    def apply(self, op: str) -> Value:
        return self._made(op, self.node)

    def sqrt(self) -> Value:
        return self.apply("sqrt")

    def to(self, dtype: DType) -> Value:
        return self if self.node.type.dtype == dtype else self._made("cast", self.node, dtype=dtype)

    @property
    def shape(self) -> Shape:
        return self.node.type.shape

    def sum(self, dim: int | None = None) -> Value:
        """Over one dimension, which stays with extent 1; as a scalar over all of them."""
        return Value(reduce("sum", self.node, dim, keepdim=dim is not None), self.scalars)

    def mean(self, dim: int) -> Value:
        return self.sum(dim) / self.shape[dim]

    def norm(self) -> Value:
        return (self * self).sum().sqrt()

    def transposed(self) -> Value:
        """Of a matrix."""
        return Value(permute(self.node, (1, 0)), self.scalars)

    def __matmul__(self, other: Value) -> Value:
        return self._join("matmul", other)

    def moved_to(self, other: Value, weight: Value | float) -> Value:
        """torch.lerp"""
        return self + (other - self) * weight

    def select(self, then: Value | float, otherwise: Value) -> Value:
        """`then` where this holds, else `otherwise`"""
        return self._made("where", self.node, otherwise._operand(then), otherwise.node)


class Update(Protocol):
    """What a rule is given: one parameter, its gradient (negated to maximize), and the options of
    its group.
    """

    parameter: Value
    gradient: Value
    options: Mapping[str, Any]
    defaults: Mapping[str, float]  # the run-time scalars, as they were at compilation
    stored: DType  # what the parameter is kept in

    def hyper(self, key: str) -> Value:
        """A run-time scalar in the dtype of the parameter."""
        ...

    def state(self, key: str, shape: Shape | None = None) -> Value:
        """What torch's optimizer keeps under `key`, as the last step left it; zeros at first.
        Of the parameter's shape if none is given.
        """
        ...

    def shared_state(self, key: str) -> Value:
        """A scalar state in f32, the same for all parameters of the group."""
        ...

    def keep(self, key: str, value: Value) -> None:
        """The new value of a state."""
        ...

    def step(self) -> Value:
        """The number of this step, from 1, in f64: there PyTorch computes bias corrections."""
        ...

    def set_parameter(self, value: Value) -> None: ...
