"""Checks of values in a model's forward, `if condition: raise ...` and `assert condition`.

A graph without branches cannot make them.  A compiled program takes the values to be right, so
such a condition has the truth value that raises nothing.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator
from types import FrameType

_TORCH_CHECKS = frozenset({"_check_tensor_all_with", "_check_with"})
_FALSE = frozenset(
    {
        ("batucada.capture.methods", "short_time_transform"),  # istft's windows leave out a sample
        ("transformers.masking_utils", "flex_attention_mask"),  # the mask hides nothing
    }
)


def value_that_passes(frame: FrameType) -> bool | None:
    """`frame` asks for the truth of a tensor: the answer with which its check raises nothing;
    None where it is no check.
    """
    asks = frame.f_globals.get("__name__"), frame.f_code.co_name
    if asks[0] == "torch" and asks[1] in _TORCH_CHECKS:
        return True
    if asks in _FALSE:
        return False
    tree = _tree(frame.f_code.co_filename)
    asked = _position(frame)
    if tree is None or None in asked:
        return None
    for statement in ast.walk(tree):
        if isinstance(statement, ast.If | ast.Assert) and _holds(statement, asked):
            found = _answer(statement, asked)
            if found is not None:
                return found
    return None


def _position(frame: FrameType) -> tuple[int | None, int | None, int | None, int | None]:
    """First line, last line, first column and last column of the instruction at work."""
    return list(frame.f_code.co_positions())[frame.f_lasti // 2]


@functools.lru_cache(maxsize=64)
def _tree(filename: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None


def _holds(statement: ast.stmt, asked: tuple[int | None, ...]) -> bool:
    return statement.lineno <= (asked[0] or 0) <= (statement.end_lineno or 0)


def _answer(statement: ast.If | ast.Assert, asked: tuple[int | None, ...]) -> bool | None:
    wanted = _passing(statement)
    if wanted is None:
        return None
    for part, value in _conditions(statement.test, wanted):
        if asked in (_span(part), _span(statement)):
            return value
    return None


def _passing(statement: ast.If | ast.Assert) -> bool | None:
    """The value of its test with which the statement does not raise."""
    if isinstance(statement, ast.Assert) or _raises(statement.orelse):
        return True
    return False if _raises(statement.body) else None


def _raises(body: list[ast.stmt]) -> bool:
    """Nothing but a message made and an exception raised."""
    *before, last = body or [ast.Pass()]
    return isinstance(last, ast.Raise) and all(isinstance(s, ast.Assign) for s in before)


def _conditions(test: ast.expr, wanted: bool) -> Iterator[tuple[ast.expr, bool]]:
    """The parts of a test that ask a tensor for its truth, with the answer that makes the test
    `wanted`.
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield test, not wanted  # where `not` is an instruction of its own
        yield from _conditions(test.operand, not wanted)
    elif isinstance(test, ast.BoolOp):
        for part in test.values:
            yield from _conditions(part, wanted)
    else:
        yield test, wanted


def _span(node: ast.expr | ast.stmt) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
