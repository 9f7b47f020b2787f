"""The graph: frozen nodes in program order, with static shapes.  Two classes hold a whole program.

A node's identity is its name; its type is derived from its arguments and checked by `ir.verify`.
`ir.text` prints a graph as a Python program and parses it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from keyword import iskeyword
from typing import Literal

from batucada.ir.types import Type

Section = Literal["FWD", "BCKWD", "REDUCE", "GRADNORM", "OPT"]
Attr = int | float | bool | str | tuple["Attr", ...]
Attrs = tuple[tuple[str, Attr], ...]

InputRole = Literal["input", "parameter", "buffer", "constant", "state", "tangent", "hyper"]
OutputRole = Literal["output", "gradient", "update"]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation and its result.  `src` is the user's `file:line` that caused it."""

    op: str
    args: tuple[Node, ...]
    type: Type
    attrs: Attrs = ()
    src: str = ""
    section: Section = "FWD"

    def attr(self, name: str) -> Attr:
        return dict(self.attrs)[name]

    def integer(self, name: str) -> int:
        value = self.attr(name)
        assert isinstance(value, int)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        value = self.attr(name)
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, int))

    @property
    def name(self) -> str:
        """The symbol's name of an input node."""
        return str(self.attr("name"))

    @property
    def role(self) -> str:
        """The role of an input node, one of `InputRole`."""
        return str(self.attr("role"))


@dataclass(frozen=True, slots=True)
class Output:
    """A result of the program.  An `update` writes `node` over the input that is called `name`;
    a `gradient` is the derivative with respect to the input called `name`."""

    name: str
    role: OutputRole
    node: Node


@dataclass(frozen=True, slots=True)
class Graph:
    """A program: `inputs` are symbols, `nodes` hold everything else that the outputs need."""

    name: str
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    def input(self, name: str) -> Node:
        return next(node for node in self.inputs if node.name == name)

    def by_role(self, role: InputRole) -> tuple[Node, ...]:
        return tuple(node for node in self.inputs if node.role == role)

    def of_role(self, role: OutputRole) -> tuple[Output, ...]:
        return tuple(output for output in self.outputs if output.role == role)

    def changed_in_forward(self) -> set[str]:
        """Buffers that hold another value when the backward pass begins."""
        return {out.name for out in self.of_role("update") if out.node.section == "FWD"}

    def users(self) -> dict[Node, list[Node]]:
        found: dict[Node, list[Node]] = {node: [] for node in (*self.inputs, *self.nodes)}
        for node in self.nodes:
            for arg in dict.fromkeys(node.args):
                found[arg].append(node)
        return found


def identifier(text: str) -> str:
    """The name as the printed program spells it: letters, digits and underscores, no keyword."""
    name = re.sub(r"\W+", "_", text) or "_"
    return f"_{name}" if name[:1].isdigit() else f"{name}_" if iskeyword(name) else name


def input_node(name: str, type: Type, role: InputRole = "input") -> Node:
    return Node("input", (), type, (("name", name), ("role", role)))


def graph_of(name: str, inputs: Iterable[Node], outputs: Iterable[Output]) -> Graph:
    """The graph that computes `outputs`; what they do not reach is left out (dead code)."""
    inputs, outputs = tuple(inputs), tuple(outputs)
    ordered = tuple(node for node in postorder(out.node for out in outputs) if node.op != "input")
    return Graph(name, inputs, ordered, outputs)


def postorder(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node the roots reach, arguments first, each once; no recursion, so depth is free."""
    done: set[Node] = set()
    for root in roots:
        stack = [root]
        while stack:
            node = stack.pop()
            if node in done:
                continue
            pending = [arg for arg in node.args if arg not in done]
            if pending:
                stack.append(node)
                stack += reversed(pending)
            else:
                done.add(node)
                yield node
