"""Products of matrices, and functions along a dimension."""

from typing import Any

import torch

from batucada.errors import InputError
from sambaflow.samba.functional.arithmetic import _refuse_out

bmm, matmul, cumsum = torch.bmm, torch.matmul, torch.cumsum


def addmm(
    input: Any,
    mat1: Any,
    mat2: Any,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: Any = None,
    is_transposed: bool = False,
) -> Any:
    """`beta * input + alpha * mat1 @ mat2`; `is_transposed`: mat2 is stored transposed."""
    _refuse_out("addmm", out)
    return torch.addmm(input, mat1, mat2.t() if is_transposed else mat2, beta=beta, alpha=alpha)


def triu_fill(input: Any, value: float) -> Any:
    """`input` with `value` above the diagonal of its last two, equal, dimensions."""
    rows, columns = input.shape[-2:]
    if rows != columns:
        raise InputError(f"samba.triu_fill needs square matrices, not {rows} x {columns}")
    above = torch.ones(rows, columns, dtype=torch.bool).triu(diagonal=1)
    return torch.masked_fill(input, above, value)
