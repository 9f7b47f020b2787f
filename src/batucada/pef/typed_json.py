"""Frozen dataclasses to JSON values and back.  Reading is strict: what does not fit is an error."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from batucada.errors import PefError

NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_PLAIN = frozenset({str, int, bool})
Reader = Callable[[Any], Any]
"""A JSON value as what it stands for; raises _Unfit."""


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a record, each with its kind."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def to_json(value: Any) -> Any:
    """`value` as JSON: records become objects, tuples lists, infinities and NaN strings."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return [item if type(item) in _PLAIN else to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {name: to_json(getattr(value, name)) for name in _fields(kind)}
    return value


class _Unfit(Exception):
    """What is wrong; `place` is where, below the value that is read."""

    def __init__(self, problem: str) -> None:
        self.problem, self.place = problem, ""

    def below(self, place: str) -> _Unfit:
        self.place = place + self.place
        return self


def from_json(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`; PefError naming `where` when a field is unknown, missing or ill-typed.

    `kind` is a dataclass, int, float, str, bool, `Any`, a Literal, `tuple[X, ...]`, `dict[str, X]`
    or `X | None`.
    """
    try:
        return _reader(kind)(value)
    except _Unfit as error:
        raise PefError(f"{where}{error.place}: {error.problem}") from None


@cache
def _reader(kind: Any) -> Reader:
    """Made once for each kind: a manifest holds tens of thousands of values."""
    if kind is str:  # the names of tensors and stages are said again and again
        return lambda value: sys.intern(_expect(str, value))
    if kind in _PLAIN:
        return lambda value: _expect(kind, value)
    if kind is Any:
        return lambda value: value
    if kind is float:
        return _float
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return lambda value: _choice(arguments, value)
    if origin is tuple:
        return _items(_reader(arguments[0]))
    if origin is dict:
        return _entries(_reader(arguments[1]))
    assert origin is types.UnionType, kind
    some = _reader(arguments[0])
    return lambda value: None if value is None else some(value)


def _record(kind: Any) -> Reader:
    readers = {name: _reader(of) for name, of in _fields(kind).items()}

    def read(value: Any) -> Any:
        given = _expect(dict, value)
        for name in given.keys() - readers.keys():
            raise _Unfit(f"unknown field {name!r}")
        found = {}
        for name, reader in readers.items():
            if name not in given:
                raise _Unfit(f"field {name!r} is missing")
            try:
                found[name] = reader(given[name])
            except _Unfit as error:
                raise error.below(f".{name}") from None
        return kind(**found)

    return read


def _items(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        found = []
        for item in _expect(list, value):
            try:
                found.append(reader(item))
            except _Unfit as error:
                raise error.below(f"[{len(found)}]") from None
        return tuple(found)

    return read


def _entries(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        found = {}
        for key, item in _expect(dict, value).items():
            try:
                found[key] = reader(item)
            except _Unfit as error:
                raise error.below(f".{key}") from None
        return found

    return read


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        found = "null" if value is None else type(value).__name__
        raise _Unfit(f"expected {kind.__name__}, found {found}")
    return value


def _float(value: Any) -> float:
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return _expect(float, value)


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    if value not in choices:
        raise _Unfit(f"{value!r} is none of {', '.join(map(str, choices))}")
    return value
