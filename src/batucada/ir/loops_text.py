"""Prints kernels as Python programs, and reads a print back (by `ast`; nothing is executed)."""

from __future__ import annotations

import ast
import math
import re
from typing import cast

from batucada.ir.loops import (
    Apply,
    Check,
    Expr,
    For,
    Index,
    IndexValue,
    Kernel,
    Literal,
    Load,
    Param,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    dtype_of,
    lanes_of,
)  # fmt: skip
from batucada.ir.loops_verify import VerifyError, result_type
from batucada.ir.types import ITEM_BYTES, DType

_INDENT = "    "
_PYTHON_WORDS = ("and", "or", "not")  # operations that need a trailing underscore in the print
_PARAM = re.compile(r"(\w+)\[(\d+)\]( inout)?")


def print_kernel(kernel: Kernel) -> str:
    """The kernel as a Python function; `parse_kernel` is the inverse."""
    params = ", ".join(f"{param.name}: '{_print_param(param)}'" for param in kernel.params)
    return "\n".join([f"def {kernel.name}({params}):", *_print_block(kernel.body, 1), ""])


def _print_param(param: Param) -> str:
    return f"{param.dtype}[{param.size}]{' inout' if param.writes else ''}"


def _print_block(body: tuple[Stmt, ...], depth: int) -> list[str]:
    if not body:
        return [f"{_INDENT * depth}pass"]
    return [line for stmt in body for line in _print_statement(stmt, depth)]


def _print_statement(stmt: Stmt, depth: int) -> list[str]:
    if isinstance(stmt, For):
        kind = "parallel" if stmt.parallel else "range"
        bounds = f"{stmt.start}, {stmt.stop}, {stmt.step}"
        bounds += "" if stmt.limit is None else f", {print_index(stmt.limit)}"
        head = f"{_INDENT * depth}for {stmt.variable} in {kind}({bounds}):"
        return [head, *_print_block(stmt.body, depth + 1)]
    return [_INDENT * depth + _print_simple(stmt)]


def _print_simple(stmt: Set | Store | Check | Prefetch) -> str:
    match stmt:
        case Set(register, value):
            return f"{register.name} = {print_expr(value)}"
        case Store(buffer, index, value, lanes):
            return f"{_print_access(buffer, index, lanes)} = {print_expr(value)}"
        case Check(condition, code):
            return f"check({print_expr(condition)}, {code})"
        case Prefetch(buffer, index):
            return f"prefetch({buffer}, {print_index(index)})"


def _print_access(buffer: str, index: Index, lanes: int) -> str:
    return f"{buffer}[{print_index(index)}{'' if lanes == 1 else f', {lanes}'}]"


def print_index(index: Index) -> str:
    terms = [name if factor == 1 else f"{factor} * {name}" for name, factor in index.terms]
    if index.offset or not terms:
        terms.append(str(index.offset))
    return " + ".join(terms)


def print_expr(expr: Expr) -> str:
    match expr:
        case Literal(value, dtype):
            odd = isinstance(value, float) and not math.isfinite(value)
            return f"{dtype}({str(value)!r})" if odd else f"{dtype}({value!r})"
        case Register(name):
            return name
        case Load(buffer, index, _, lanes):
            return _print_access(buffer, index, lanes)
        case IndexValue(index):
            return f"index({print_index(index)})"
        case Apply():
            return _print_apply(expr)


def _print_apply(expr: Apply) -> str:
    args = [print_expr(arg) for arg in expr.args]
    if expr.op in ("lane", "splat"):
        args.append(str(expr.lanes))
    elif expr.op == "cast":
        args.append(expr.dtype)
    elif expr.op == "lane_of":
        args.append(str(expr.arg))
    elif expr.op == "part":
        args += [str(expr.arg), str(expr.lanes)]
    name = f"{expr.op}_" if expr.op in _PYTHON_WORDS else expr.op
    return f"{name}({', '.join(args)})"


def parse_kernel(text: str) -> Kernel:
    """The kernel that `text` describes; ValueError with the line when it is not one."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"not a kernel: {error}") from error
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise ValueError("a kernel is one function")
    return _Parser(tree.body[0]).kernel()


class _Parser:
    def __init__(self, function: ast.FunctionDef) -> None:
        self.function = function
        self.params: dict[str, Param] = {}
        self.registers: dict[str, Register] = {}

    def kernel(self) -> Kernel:
        for arg in self.function.args.args:
            self.params[arg.arg] = self._param(arg)
        return Kernel(
            self.function.name, tuple(self.params.values()), self._block(self.function.body)
        )

    def _error(self, node: ast.AST, message: str) -> ValueError:
        return ValueError(
            f"kernel {self.function.name}, line {getattr(node, 'lineno', 0)}: {message}"
        )

    def _param(self, arg: ast.arg) -> Param:
        annotation = arg.annotation
        text = annotation.value if isinstance(annotation, ast.Constant) else ""
        match = _PARAM.fullmatch(str(text))
        if match is None or match[1] not in ITEM_BYTES:
            raise self._error(arg, f"{arg.arg} is no buffer: {text!r}")
        return Param(arg.arg, cast(DType, match[1]), int(match[2]), match[3] is not None)

    def _block(self, body: list[ast.stmt]) -> tuple[Stmt, ...]:
        return tuple(self._statement(node) for node in body if not isinstance(node, ast.Pass))

    def _statement(self, node: ast.stmt) -> Stmt:
        match node:
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id=kind), args=bounds)
            ):
                if kind not in ("range", "parallel") or len(bounds) not in (3, 4):
                    raise self._error(
                        node, "a loop is over range or parallel of three constants and a limit"
                    )
                start, stop, step = (self._integer(bound) for bound in bounds[:3])
                limit = self._index(bounds[3]) if len(bounds) == 4 else None
                body = self._block(node.body)
                return For(name, start, stop, step, body, kind == "parallel", limit)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                expr = self._expr(value)
                register = Register(name, dtype_of(expr), lanes_of(expr))
                self.registers[name] = register
                return Set(register, expr)
            case ast.Assign(targets=[ast.Subscript() as place], value=value):
                param, index, lanes = self._access(place)
                return Store(param.name, index, self._expr(value), lanes)
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[condition, code])):
                return Check(self._expr(condition), self._integer(code))
            case ast.Expr(
                value=ast.Call(func=ast.Name(id="prefetch"), args=[ast.Name(id=name), at])
            ):
                return Prefetch(self._buffer(node, name).name, self._index(at))
        raise self._error(node, f"not a statement of the loop language: {ast.unparse(node)}")

    def _integer(self, node: ast.expr) -> int:
        value = self._constant(node)
        if type(value) is not int:
            raise self._error(node, f"not an integer: {ast.unparse(node)}")
        return value

    def _constant(self, node: ast.expr) -> object:
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self._error(node, f"not a constant: {ast.unparse(node)}") from None

    def _buffer(self, node: ast.AST, name: str) -> Param:
        if name not in self.params:
            raise self._error(node, f"unknown buffer {name!r}")
        return self.params[name]

    def _access(self, node: ast.Subscript) -> tuple[Param, Index, int]:
        if not isinstance(node.value, ast.Name):
            raise self._error(node, f"not a buffer: {ast.unparse(node.value)}")
        param = self._buffer(node, node.value.id)
        match node.slice:
            case ast.Tuple(elts=[index, lanes]):
                return param, self._index(index), self._integer(lanes)
            case index:
                return param, self._index(index), 1

    def _index(self, node: ast.expr) -> Index:
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._index(left) + self._index(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=ast.Name(id=name)):
                return Index.of(name) * self._integer(left)
            case ast.Name(id=name):
                return Index.of(name)
        return Index(self._integer(node))

    def _expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Name(id=name):
                if name not in self.registers:
                    raise self._error(node, f"register {name} is used before it is set")
                return self.registers[name]
            case ast.Subscript():
                param, index, lanes = self._access(node)
                return Load(param.name, index, param.dtype, lanes)
            case ast.Call(func=ast.Name(id=op), args=args):
                return self._call(op.removesuffix("_"), args)
        raise self._error(node, f"not an expression of the loop language: {ast.unparse(node)}")

    def _call(self, op: str, args: list[ast.expr]) -> Expr:
        match op, args:
            case "index", [at]:
                return IndexValue(self._index(at))
            case "lane", [lanes]:
                return Apply("lane", (), "i64", self._integer(lanes))
            case "splat", [value, lanes]:
                inner = self._expr(value)
                return Apply("splat", (inner,), dtype_of(inner), self._integer(lanes))
            case "lane_of", [value, lane]:
                inner = self._expr(value)
                return Apply("lane_of", (inner,), dtype_of(inner), 1, self._integer(lane))
            case "part", [value, start, lanes]:
                inner, first = self._expr(value), self._integer(start)
                return Apply("part", (inner,), dtype_of(inner), self._integer(lanes), first)
            case "cast", [value, ast.Name(id=dtype)] if dtype in ITEM_BYTES:
                inner = self._expr(value)
                return Apply("cast", (inner,), cast(DType, dtype), lanes_of(inner))
            case dtype, [value] if dtype in ITEM_BYTES:
                return self._literal(value, cast(DType, dtype))
        return self._operation(op, args)

    def _operation(self, op: str, nodes: list[ast.expr]) -> Apply:
        args = tuple(self._expr(node) for node in nodes)
        if op == "pack" and args:
            return Apply("pack", args, dtype_of(args[0]), len(args))
        try:
            dtype, lanes = result_type(op, [(dtype_of(arg), lanes_of(arg)) for arg in args])
        except VerifyError as error:
            raise self._error(nodes[0] if nodes else self.function, str(error)) from error
        return Apply(op, args, dtype, lanes)

    def _literal(self, node: ast.expr, dtype: DType) -> Literal:
        value = self._constant(node)
        if isinstance(value, str):
            return Literal(float(value), dtype)
        if not isinstance(value, int | float):
            raise self._error(node, f"not a number: {ast.unparse(node)}")
        return Literal(value, dtype)
