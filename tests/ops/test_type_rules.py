"""What the type rules of operations refuse, and the reason that they name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batucada.ir.graph import Node, input_node
from batucada.ir.types import Type
from batucada.ops import TypeRuleError, make

MISTAKES: dict[str, Callable[[Node, Node], Node]] = {
    "dtypes differ": lambda x, i: make("add", x, i),
    "do not broadcast": lambda x, i: make(
        "add", x, make("slice", x, dim=1, start=0, stop=2, step=1)
    ),
    "not bool": lambda x, i: make("where", x, x, x),
    "inner dimensions": lambda x, i: make("matmul", x, x),
    "elements": lambda x, i: make("reshape", x, shape=(5,)),
    "permutation": lambda x, i: make("permute", x, dims=(0, 0)),
    "do not": lambda x, i: make("expand", x, shape=(2, 4)),
    "slice": lambda x, i: make("slice", x, dim=0, start=1, stop=5, step=1),
    "do not fit": lambda x, i: make("cat", x, i, dim=0),
    "dimensions": lambda x, i: make("take", x, i, dims=(2,)),
    "take: indices of i64": lambda x, i: make("take", x, x, dims=(0,)),
    "has no dimensions": lambda x, i: make(
        "argsort", make("reshape", make("sum", x, dims=(0, 1)), shape=()), descending=False
    ),
    "searchsorted": lambda x, i: make("searchsorted", x, i, right=False),
    "scan by": lambda x, i: make("scan", x, dim=2, by="add"),
    "larger": lambda x, i: make(
        "put", make("slice", x, dim=1, start=0, stop=2, step=1), x, i, dims=(0,), mode="add"
    ),
    "put: i64": lambda x, i: make("put", x, i, i, dims=(0,), mode="add"),
    "integer": lambda x, i: make("check_index", x, size=3, ignore=-1, low=0),
    "reduce": lambda x, i: make("sum", x, dims=(2,)),
    "empty dimension": lambda x, i: make(
        "amax", make("slice", x, dim=0, start=0, stop=0, step=1), dims=(0,)
    ),
}


@pytest.mark.parametrize("reason", MISTAKES)
def test_type_rules_refuse(reason: str) -> None:
    x, i = input_node("x", Type("f32", (2, 3))), input_node("i", Type("i64", (2, 3)))
    with pytest.raises(TypeRuleError, match=reason):
        MISTAKES[reason](x, i)
