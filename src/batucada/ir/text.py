"""A graph as a Python program, and back.  The text is data: it is parsed with `ast`, never
executed.
"""

from __future__ import annotations

import ast
import hashlib
import math
from collections.abc import Iterator
from keyword import iskeyword
from typing import cast, get_args

from batucada.ir.graph import Attr, Attrs, Graph, Node, Output, OutputRole, Section, graph_of
from batucada.ir.types import parse_type

_MODEL_SECTIONS = get_args(Section)


class ParseError(ValueError):
    """A text that is not a printed graph; says the line."""


def print_graph(graph: Graph) -> str:
    return "".join(f"{line}\n" for line in _lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    names = {node: node.name for node in graph.inputs}
    names |= {node: f"v{i}" for i, node in enumerate(graph.nodes)}
    arguments = ", ".join(f"{n.name}: '{n.type} {n.role}'" for n in graph.inputs)
    yield f"def {graph.name}({arguments}):"
    for node in graph.nodes:
        yield _print_node(node, names)
    for out in graph.outputs:
        yield f"    {out.role}({out.name!r}, {names[out.node]})"


def _print_node(node: Node, names: dict[Node, str]) -> str:
    args = [names[arg] for arg in node.args] + [f"{key}={_print_attr(v)}" for key, v in node.attrs]
    call = f"    {names[node]} = {_callable(node.op)}({', '.join(args)})"
    return f"{call:<54}  # {node.type} {node.section} {node.src}".rstrip()


def _callable(op: str) -> str:
    """`and`, `or` and `not` are no names in Python: they are printed as `and_`."""
    return f"{op}_" if iskeyword(op) else op


def _print_attr(value: Attr) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    return repr(value)


def graph_hash(graph: Graph) -> str:
    """SHA-256 of the canonical print: the program without the places in the user's files.  Line by
    line: a large program's text is megabytes.
    """
    digest = hashlib.sha256()
    for number, line in enumerate(_lines(graph)):
        canonical = line.split("  # ")[0].rstrip()
        digest.update(f"\n{canonical}".encode() if number else canonical.encode())
    return digest.hexdigest()


def parse_graph(text: str) -> Graph:
    """Inverse of `print_graph`.  ParseError names the line."""
    try:
        tree = ast.parse(text).body
    except SyntaxError as error:
        raise ParseError(f"line {error.lineno}: {error.msg}") from None
    if len(tree) != 1 or not isinstance(tree[0], ast.FunctionDef):
        raise ParseError("line 1: expected one function")
    return _Parser(text, tree[0]).graph()


class _Parser:
    def __init__(self, text: str, function: ast.FunctionDef) -> None:
        self.lines = text.splitlines()
        self.function = function
        self.values: dict[str, Node] = {}
        self.outputs: list[Output] = []

    def graph(self) -> Graph:
        inputs = [self._input(arg) for arg in self.function.args.args]
        for statement in self.function.body:
            try:
                self._statement(statement)
            except (KeyError, ValueError, AttributeError, IndexError) as error:
                raise ParseError(f"line {statement.lineno}: {error}") from None
        return graph_of(self.function.name, inputs, self.outputs)

    def _input(self, arg: ast.arg) -> Node:
        type_text, role = ast.literal_eval(cast(ast.expr, arg.annotation)).split(" ")
        attrs: Attrs = (("name", arg.arg), ("role", role))
        self.values[arg.arg] = node = Node("input", (), parse_type(type_text), attrs)
        return node

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            target = cast(ast.Name, statement.targets[0]).id
            self.values[target] = self._node(statement.value)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            name, value = statement.value.args
            role = cast(OutputRole, cast(ast.Name, statement.value.func).id)
            node = self.values[cast(ast.Name, value).id]
            self.outputs.append(Output(ast.literal_eval(name), role, node))
        else:
            raise ValueError("expected an operation or an output")

    def _node(self, call: ast.Call) -> Node:
        comment = self.lines[call.lineno - 1].split("  # ", 1)[1].split(" ", 2)
        args = tuple(self.values[cast(ast.Name, arg).id] for arg in call.args)
        attrs = tuple((cast(str, k.arg), _parse_attr(k.value)) for k in call.keywords)
        section = cast(Section, comment[1])
        if section not in _MODEL_SECTIONS:
            raise ValueError(f"unknown section {section!r}")
        src = comment[2] if len(comment) > 2 else ""
        printed = cast(ast.Name, call.func).id
        op = printed[:-1] if iskeyword(printed[:-1]) else printed
        return Node(op, args, parse_type(comment[0]), attrs, src, section)


def _parse_attr(value: ast.expr) -> Attr:
    if isinstance(value, ast.Call):
        return float(ast.literal_eval(value.args[0]))
    return ast.literal_eval(value)
