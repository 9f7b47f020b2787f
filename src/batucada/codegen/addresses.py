"""Addresses and indices of a kernel: each sum once, at the top of the outermost loop that knows it.

What is left at an access is a constant distance from an address that its neighbours share, so
LLVM has no common subexpressions to look for and nothing to hoist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batucada.codegen.builder import Builder, Value, constant
from batucada.ir.loops import Index
from batucada.ir.types import DType

Terms = tuple[tuple[str, int], ...]


@dataclass
class _Scope:
    """An open loop, or the whole function: what is computed at its top."""

    lines: list[str] = field(default_factory=list)
    known: dict[tuple[str, Terms], str] = field(default_factory=dict)
    spread: dict[tuple[str, DType, int], Value] = field(default_factory=dict)


class Addresses:
    """`register` gives the value of an i64 register, which may change: sums with one are
    computed at each use.
    """

    def __init__(self, builder: Builder, register: Callable[[str], Value]) -> None:
        self._b = builder
        self._register = register
        self._scopes = [_Scope()]
        self._variables: dict[str, tuple[str, int]] = {}  # of a loop -> its value, its depth

    def open(self, variable: str, value: str) -> None:
        """The body of a loop begins."""
        self._variables[variable] = value, len(self._scopes)
        self._scopes.append(_Scope())

    def close(self) -> list[str]:
        """The lines at the top of the loop that ends here."""
        return self._scopes.pop().lines

    def index(self, index: Index) -> Value:
        """The value of an index as i64."""
        fixed, rest = self._split(index.terms)
        total = Value(self._sum(fixed), "i64") if fixed else constant(index.offset, "i64")
        if fixed and index.offset:
            total = self._b.op("add nsw", total, index.offset)
        return self._with_registers(total, rest)

    def pointer(self, buffer: str, kind: str, index: Index) -> str:
        """The address of element `index` of `buffer` (a pointer), whose elements are of LLVM
        type `kind`.
        """
        fixed, rest = self._split(index.terms)
        base = self._base(buffer, kind, fixed)
        offset = self._with_registers(constant(index.offset, "i64"), rest)
        if offset.text == "0":
            return base
        name = f"%{self._b.name('a')}"
        self._b.line(f"{name} = getelementptr {kind}, ptr {base}, {offset}")
        return name

    def splat(self, value: Value, lanes: int) -> Value:
        """`value` in every lane, once for the loop that is open."""
        if value.lanes == lanes:
            return value
        key = (value.text, value.dtype, lanes)
        for scope in self._scopes:
            if key in scope.spread:
                return scope.spread[key]
        found = self._scopes[-1].spread[key] = self._b.splat(value, lanes)
        return found

    def _split(self, terms: Terms) -> tuple[Terms, Terms]:
        """Those of loop variables, outermost first, and those of registers."""
        fixed = [t for t in terms if t[0] in self._variables]
        fixed.sort(key=lambda t: self._variables[t[0]][1])
        return tuple(fixed), tuple(t for t in terms if t[0] not in self._variables)

    def _with_registers(self, total: Value, terms: Terms) -> Value:
        for name, factor in terms:
            value = self._register(name)
            term = value if factor == 1 else self._b.op("mul nsw", value, factor)
            total = term if total.text == "0" else self._b.op("add nsw", term, total)
        return total

    def _sum(self, terms: Terms) -> str:
        """factor * variable + ..."""
        name, factor = terms[-1]
        value, depth = self._variables[name]
        if len(terms) > 1:
            left, right = self._sum(terms[:-1]), self._sum(terms[-1:])
            return self._once(depth, ("", terms), f"add nsw i64 {left}, {right}")
        if factor == 1:
            return value
        return self._once(depth, ("", terms), f"mul nsw i64 {value}, {factor}")

    def _base(self, buffer: str, kind: str, terms: Terms) -> str:
        if not terms:
            return buffer
        depth = self._variables[terms[-1][0]][1]
        outer, by = self._base(buffer, kind, terms[:-1]), self._sum(terms[-1:])
        return self._once(depth, (buffer, terms), f"getelementptr {kind}, ptr {outer}, i64 {by}")

    def _once(self, depth: int, key: tuple[str, Terms], instruction: str) -> str:
        scope = self._scopes[depth]
        if key not in scope.known:
            name = scope.known[key] = f"%{self._b.name('i')}"
            scope.lines.append(f"  {name} = {instruction}")
        return scope.known[key]
