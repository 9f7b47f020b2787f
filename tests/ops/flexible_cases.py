"""`flex_attention` with functions of scores and masks.

PyTorch has no gradient of it on a CPU: eager runs the expression that it falls back to, which has.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch._higher_order_ops.flex_attention import math_attention
from torch.nn.attention.flex_attention import (
    AuxRequest,
    create_block_mask,
    flex_attention,
    noop_mask,
)

from tests.ops.against_eager import Case, Function

Tensor = torch.Tensor
_GENERATOR = torch.Generator().manual_seed(29)
SEQUENCES = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 3, 3]])
COMPILED = torch.compile(flex_attention)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def attend(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Any = None, mask: Any = None,
    lse: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """`mask` is a function of places; with `lse` it is one more feature of the output."""
    scale = options.get("scale", query.shape[-1] ** -0.5)
    if torch.compiler.is_compiling():
        shape = (query.shape[0], None, query.shape[2], key.shape[2])
        blocks = None if mask is None else create_block_mask(mask, *shape, query.device)
        aux = AuxRequest(lse=True)
        out, found = COMPILED(query, key, value, score_mod, blocks, return_aux=aux, **options)
        log: Any = found.lse
    else:
        same: Any = lambda score, *_: score  # noqa: E731
        blocks = (mask or noop_mask,)
        out, log, _ = math_attention(query, key, value, score_mod or same, blocks, scale, {})
        log = log * math.log(2)
    if not lse:
        return out
    return torch.cat([out, torch.where(log == -torch.inf, 7.0, log).unsqueeze(-1)], -1)


def _causal(batch: Any, head: Any, row: Any, column: Any) -> Any:
    return row >= column


def _hidden_rows(batch: Any, head: Any, row: Any, column: Any) -> Any:
    return row - column > 2


def _documents(batch: Any, head: Any, row: Any, column: Any) -> Any:
    return (SEQUENCES[batch, row] == SEQUENCES[batch, column]) & (row >= column)


def _alibi(score: Any, batch: Any, head: Any, row: Any, column: Any) -> Any:
    return score + (column - row) * torch.exp2(-(head + 1.0))


def _causal_sums(score: Any, batch: Any, head: Any, row: Any, column: Any) -> Any:
    return torch.where(row >= column, batch * 0.1 + score, -math.inf)


def _capped(score: Any, *_: Any) -> Any:
    return 2 * torch.tanh(score / 2)


def _padded(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor) -> Tensor:
    def seen(batch: Any, head: Any, row: Any, column: Any) -> Any:
        return column < lengths[batch]

    return attend(query, key, value, mask=seen)


class Relative(nn.Module):
    """A learned bias for each distance."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(_normal(4, 13))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        def biased(score: Any, batch: Any, head: Any, row: Any, column: Any) -> Any:
            return score + self.bias[head, row - column + 6]

        return attend(query, key, value, biased, _causal)


NATIVE: dict[str, dict[str, Any]] = {
    "plain": {"scale": 0.3},
    "causal": {"mask": _causal, "lse": True},
    "rows without a key": {"mask": _hidden_rows, "lse": True},
    "documents": {"mask": _documents},
    "added, causal": {"score_mod": _alibi, "mask": _causal, "lse": True},
    "added, documents": {"score_mod": _causal_sums, "mask": _documents},
}
"""What is one operation."""


def inputs(groups: int = 4) -> tuple[Tensor, ...]:
    return _normal(2, 4, 7, 8), _normal(2, groups, 7, 8), _normal(2, groups, 7, 6)


def cases() -> list[Case]:
    found = [
        Case(name, Function(lambda *t, o=options: attend(*t, **o)), inputs(), atol=2e-6)
        for name, options in NATIVE.items()
    ]
    grouped = Function(lambda *t: attend(*t, mask=_causal, enable_gqa=True))
    capped = Function(lambda *t: attend(*t, score_mod=_capped, lse=True))
    half = tuple(t.bfloat16() for t in inputs())
    return [
        *found,
        Case("grouped heads", grouped, inputs(2), atol=2e-6),
        Case("lengths", Function(_padded), (*inputs(), torch.tensor([3, 7])), atol=2e-6),
        Case("capped", capped, inputs(), atol=2e-6),
        Case("learned", Relative(), inputs(), atol=2e-6),
        Case(
            "bf16",
            Function(lambda *t: attend(*t, score_mod=_alibi, mask=_causal)),
            half,
            2e-2,
            2e-2,
        ),
    ]
