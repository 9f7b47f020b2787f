"""Frozen dataclasses to JSON values and back.  Reading is strict: what does not fit is an error."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from batucada.errors import PefError

NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_PLAIN = frozenset({str, int, bool})
_parts = cache(lambda kind: (typing.get_origin(kind), typing.get_args(kind)))


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a record, each with its kind."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def to_json(value: Any) -> Any:
    """`value` as JSON: records become objects, tuples lists, infinities and NaN strings."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {name: to_json(getattr(value, name)) for name in _fields(type(value))}
    return value


def from_json(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`; PefError naming `where` when a field is unknown, missing or ill-typed.

    `kind` is a dataclass, int, float, str, bool, `Any`, a Literal, `tuple[X, ...]`, `dict[str, X]`
    or `X | None`.
    """
    if kind in _PLAIN:
        return _expect(kind, value, where)
    if kind is Any:
        return value
    if kind is float:
        return _float(value, where)
    if dataclasses.is_dataclass(kind):
        return _record(kind, _expect(dict, value, where), where)
    origin, arguments = _parts(kind)
    if origin is Literal:
        return _choice(arguments, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(from_json(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(items))
    if origin is dict:
        items = _expect(dict, value, where)
        return {k: from_json(arguments[1], v, f"{where}.{k}") for k, v in items.items()}
    assert origin is types.UnionType, kind
    return None if value is None else from_json(arguments[0], value, where)


def _record(kind: Any, value: dict[str, Any], where: str) -> Any:
    fields = _fields(kind)
    for name in value:
        if name not in fields:
            raise PefError(f"{where}: unknown field {name!r}")
    for name in fields:
        if name not in value:
            raise PefError(f"{where}: field {name!r} is missing")
    return kind(
        **{name: from_json(fields[name], value[name], f"{where}.{name}") for name in fields}
    )


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        found = "null" if value is None else type(value).__name__
        raise PefError(f"{where}: expected {kind.__name__}, found {found}")
    return value


def _float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return _expect(float, value, where)


def _choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in choices:
        raise PefError(f"{where}: {value!r} is none of {', '.join(map(str, choices))}")
    return value
