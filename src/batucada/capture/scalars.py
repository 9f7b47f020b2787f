"""Numbers that a model reads of tensors, `x.max().item()`, and computes with: they stay values of
the run.

PyTorch has numbers that are not known yet, SymFloat and SymInt.  Behind those here is a tensor
without data; where one meets an operator, the tensor takes its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from batucada.capture.guards import value_that_passes
from batucada.capture.leaves import leaves
from batucada.errors import CaptureError

aten = torch.ops.aten
Refuse = Callable[[], None]  # reports that a value is read which the compiler would have to know

_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "mod": torch.remainder,
    "float_truediv": torch.div, "int_truediv": lambda a, b: a.double() / b.double(),
    "int_floordiv": torch.floor_divide, "float_pow": torch.pow, "pow_by_natural": torch.pow,
    "sym_min": torch.minimum, "sym_max": torch.maximum,
    "eq": torch.eq, "ne": torch.ne, "gt": torch.gt, "lt": torch.lt, "ge": torch.ge, "le": torch.le,
    "sym_and": torch.logical_and, "sym_or": torch.logical_or, "sym_not": torch.logical_not,
    "neg": torch.neg, "abs": torch.abs, "pos": torch.positive, "sym_float": Tensor.double,
    "sym_sqrt": torch.sqrt, "sym_log2": torch.log2,
    "floor": lambda a: a.floor().long(), "ceil": lambda a: a.ceil().long(),
    "trunc": lambda a: a.trunc().long(),
}  # fmt: skip
"""By the names of PyTorch's SymNode, of float64 and int64 as Python computes."""


class _Node:
    """What PyTorch asks of a number that is not known: its SymNode."""

    def __init__(self, tensor: Tensor, refuse: Refuse) -> None:
        self.tensor = tensor
        self._refuse = refuse

    def __getattr__(self, name: str) -> Any:
        if name not in _OPERATORS:
            raise AttributeError(f"a number of the run has no {name}")
        return partial(self._computed, _OPERATORS[name])

    def _computed(self, function: Callable[..., Tensor], *others: _Node) -> _Node:
        return _Node(function(self.tensor, *(other.tensor for other in others)), self._refuse)

    def _known(self, value: float) -> _Node:
        return _Node(torch.tensor(value, dtype=self.tensor.dtype), self._refuse)

    wrap_int = wrap_float = _known

    def is_int(self) -> bool:
        return self.tensor.dtype == torch.int64

    def is_float(self) -> bool:
        return self.tensor.dtype == torch.float64

    def is_bool(self) -> bool:
        return self.tensor.dtype == torch.bool

    def is_symbolic(self) -> bool:
        return True

    def is_constant(self) -> bool:
        return False

    is_nested_int = has_hint = is_constant

    def maybe_as_int(self) -> None:
        return None

    def _graph_repr(self) -> str:
        return "a number of the run"

    str = _graph_repr

    def bool_(self) -> bool:
        """Asked by the method `__bool__` of PyTorch's number, and that by the program."""
        answer = value_that_passes(sys._getframe(2))
        return self._guessed(True) if answer is None else answer

    def _guessed(self, value: Any) -> Any:
        self._refuse()
        return value

    def expect_true(self, *_: Any) -> bool:
        """A check of PyTorch's own: taken to be right, as those of a program."""
        return True

    def int_(self) -> int:
        return self._guessed(1)

    def guard_int(self, *_: Any) -> int:
        return self._guessed(1)

    def guard_float(self, *_: Any) -> float:
        return self._guessed(1.0)

    def guard_bool(self, *_: Any) -> bool:
        return self._guessed(True)


def can_be_number(tensor: Tensor) -> bool:
    return not tensor.is_complex() and tensor.dtype != torch.bool


def number_of(tensor: Tensor, refuse: Refuse) -> Any:
    """The one element of a tensor without data."""
    is_float = tensor.is_floating_point()
    one = tensor.reshape(()).to(torch.float64 if is_float else torch.int64)
    node: Any = _Node(one, refuse)
    return torch.SymFloat(node) if is_float else torch.SymInt(node)


def has_numbers(values: Iterable[Any]) -> bool:
    return any(_tensor_of(leaf) is not None for value in values for leaf in leaves(value))


def called_with_tensors(
    func: Any, args: Any, kwargs: dict[str, Any], run: Callable[..., Any], where: str
) -> Any:
    """What an operator gives, with tensors in place of numbers of the run.  `run(func, *args)`
    calls so that it is recorded.
    """
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    beside = [x for x in leaves([*given.values()]) if isinstance(x, Tensor)]

    def placed(value: Any) -> Any:
        tensor = _tensor_of(value)
        return value if tensor is None else run(Tensor.to, tensor, _dtype_among(tensor, beside))

    given = {k: placed(v) if k in _tensors_of(func) else v for k, v in given.items()}
    numbers = {name: value for name, value in given.items() if has_numbers([value])}
    _check_scalars(func, numbers, where)
    first = next(iter(numbers), None)
    if first in ("fill_value", "s"):  # of `full` and its like, and of `scalar_tensor`
        zero = 0.0 if isinstance(given[first], torch.SymFloat) else 0
        return run(aten.fill_.Tensor, _run(func, given | {first: zero}, run), placed(given[first]))
    if first == "alpha" and "other" in given:
        other = run(torch.mul, given["other"], placed(given["alpha"]))
        return _run(func, given | {"other": other, "alpha": 1}, run)
    if first is None:
        return _run(func, given, run)
    form = _form_with_tensors(func, frozenset(numbers))
    if form is None:
        raise CaptureError(
            f"{where}: {func} takes no {first} that is read of a tensor; write it with the tensor"
        )
    given = {k: _as_tensor(placed(v)) if k in _tensors_of(form) else v for k, v in given.items()}
    return _run(form, given, run)


@cache
def _tensors_of(func: Any) -> frozenset[str]:
    arguments = func._schema.arguments
    return frozenset(a.name for a in arguments if str(a.type) in ("Tensor", "Optional[Tensor]"))


def _run(func: Any, given: dict[str, Any], run: Callable[..., Any]) -> Any:
    """`self` cannot be given by name."""
    args = [given[a.name] for a in func._schema.arguments if not a.kwarg_only and a.name in given]
    named = {a.name for a in func._schema.arguments if a.kwarg_only}
    return run(func, *args, **{name: value for name, value in given.items() if name in named})


def _check_scalars(func: Any, numbers: dict[str, Any], where: str) -> None:
    kinds = {argument.name: str(argument.type) for argument in func._schema.arguments}
    for name in numbers:
        if kinds[name] not in ("number", "Optional[number]"):
            raise CaptureError(
                f"{where}: {func}: {name} depends on a value that the program reads of a tensor; a"
                " compiled graph is static. Use torch.where with a mask, or index_select"
            )


@cache
def _form_with_tensors(func: Any, numbers: frozenset[str]) -> Any:
    """`mul.Tensor` for `mul.Scalar`: the overload that takes tensors of the same names."""
    kinds = [(a.name, str(a.type)) for a in func._schema.arguments]
    for overload in func.overloadpacket.overloads():
        found = getattr(func.overloadpacket, overload)
        taken = [(a.name, str(a.type)) for a in found._schema.arguments]
        wanted = [(n, k.replace("number", "Tensor")) if n in numbers else (n, k) for n, k in kinds]
        also = [(n, k.replace("number", "Tensor")) for n, k in kinds]
        if taken in (wanted, also):
            return found
    return None


def _dtype_among(number: Tensor, tensors: Sequence[Tensor]) -> torch.dtype:
    """A number takes over the dtype of tensors, but for a float among integers."""
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    if floats:
        return floats[0]
    if number.is_floating_point():
        return torch.get_default_dtype()
    whole = [t.dtype for t in tensors if not t.is_complex() and t.dtype != torch.bool]
    return whole[0] if whole else number.dtype


def _as_tensor(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, bool | int | float) else value


def _tensor_of(value: Any) -> Tensor | None:
    """Of a number of the run."""
    if isinstance(value, torch.SymFloat | torch.SymInt | torch.SymBool):
        node: Any = value.node
        return node.tensor
    return None
