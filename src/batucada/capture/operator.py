"""What there is to know of one of PyTorch's operators, whatever it is called with."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import decomposition_table

from batucada.capture.folding import reads_values
from batucada.ops import ATEN
from batucada.ops.base import Translation

_ALSO_CHANGED = {"aten.native_batch_norm.default": (3, 4)}


_COMPLEX_OF_REAL = frozenset(
    {"aten._fft_r2c", "aten.complex", "aten.polar", "aten.view_as_complex"}
)


@dataclass(frozen=True, slots=True)
class Operator:
    """`also_changes` are arguments that change though the schema does not say so: their new values
    are the last of what the translation returns."""

    func: Any  # torch's OpOverload
    name: str  # `aten.add_.Tensor`
    packet: str  # `aten.add_`
    base: str  # `add`
    functional: str  # the operator that returns a new tensor: `aten.add.Tensor`
    changes: bool  # its first argument
    outs: tuple[str, ...]  # the keyword arguments that its results are written to, in order
    also_changes: tuple[int, ...]
    is_view: bool
    reads_values: bool
    decomposes: bool

    @property
    def translation(self) -> Translation | None:
        return _translation(self.functional)


@functools.cache
def _translation(name: str) -> Translation | None:
    """Looked up when it is needed only: to know that there is none, all of `ops` is imported."""
    return ATEN.get(name)


@functools.cache
def operator_of(func: Any) -> Operator:
    name = str(func)
    changes = _changes_first_argument(func)
    functional = _functional(name) if changes else name
    return Operator(
        func=func,
        name=name,
        packet=func._schema.name.replace("::", "."),
        base=func._schema.name.split("::")[1].strip("_"),
        functional=functional,
        changes=changes,
        outs=outs_of(func),
        also_changes=_ALSO_CHANGED.get(name, ()),
        is_view=func.is_view,
        reads_values=reads_values(func),
        decomposes=not changes and (func in decomposition_table or func._can_decompose()),
    )


def functional_form(operator: Operator) -> Any:
    """The operator that returns what this one writes to its first argument, None if there is
    none."""
    namespace, base, overload = operator.functional.split(".")
    packet = getattr(getattr(torch.ops, namespace), base, None)
    if packet is None or overload not in packet.overloads():
        return None
    found = getattr(packet, overload)
    return None if found is operator.func else found  # a name without the underscore of old


def outs_of(func: Any) -> tuple[str, ...]:
    """`out` of `aten.add.out`"""
    return tuple(a.name for a in func._schema.arguments if a.kwarg_only and is_written(a))


@functools.cache
def form_without_outs(func: Any) -> Any:
    """The operator that returns what this one writes to `out`, None if there is none: the overload
    that is called with the same arguments.
    """
    shared = {a.name: str(a.type) for a in func._schema.arguments if not is_written(a)}
    for overload in func.overloadpacket.overloads():
        found = getattr(func.overloadpacket, overload)
        named = {a.name: a for a in found._schema.arguments}
        needed = {name for name, a in named.items() if not a.has_default_value()}
        same = all(str(named[n].type) == kind for n, kind in shared.items() if n in named)
        if not found._schema.is_mutable and needed <= shared.keys() <= named.keys() and same:
            return found
    return None


def concerns_complex(operator: Operator, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether it takes or makes complex numbers."""
    if operator.packet in _COMPLEX_OF_REAL:
        return True
    return _any_complex(args) or _any_complex(kwargs.values())


def _any_complex(values: Iterable[Any]) -> bool:
    """Every operator of a model is asked."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.is_complex():
                return True
        elif isinstance(value, list | tuple):
            if _any_complex(value):
                return True
        elif isinstance(value, complex | torch.dtype) and is_complex(value):
            return True
    return False


def is_complex(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_complex()
    return isinstance(value, complex) or (isinstance(value, torch.dtype) and value.is_complex)


def without_data(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.device.type != "meta":
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return value


def _changes_first_argument(func: Any) -> bool:
    arguments = func._schema.arguments
    return bool(arguments) and not arguments[0].kwarg_only and is_written(arguments[0])


def is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _functional(name: str) -> str:
    """`aten.relu_.default` -> `aten.relu.default`"""
    if name == "aten.transpose_.default":
        return "aten.transpose.int"
    base, overload = name.rsplit(".", 1)
    return f"{base.removesuffix('_')}.{overload}"
