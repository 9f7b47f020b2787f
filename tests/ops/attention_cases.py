"""Attention with every option: masks, heads in groups, scales, lengths and widths of any size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tests.ops.against_eager import Case, Function

_GENERATOR = torch.Generator().manual_seed(17)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _seen(*shape: int) -> torch.Tensor:
    """A mask that lets a part of the keys be seen; nothing where the second last index is 2."""
    mask = torch.rand(shape, generator=_GENERATOR) > 0.4
    if shape[-2] > 2:
        mask[..., 2, :] = False
    return mask


def _case(name: str, inputs: tuple[torch.Tensor, ...], **options: Any) -> Case:
    function: Any = partial(scaled_dot_product_attention, **options)
    return Case(name, Function(function), inputs, atol=2e-6)


def _qkv(
    leading: tuple[int, ...], queries: int, keys: int, depth: int, width: int, groups: int = 0
) -> tuple[torch.Tensor, ...]:
    """Query, key and value; `groups` are the heads of keys and values where they are fewer."""
    fewer = (*leading[:-1], groups) if groups else leading
    return (
        _normal(*leading, queries, depth),
        _normal(*fewer, keys, depth),
        _normal(*fewer, keys, width),
    )


class Joined(nn.Module):
    """Query, key and value as views of one buffer, and the heads joined again."""

    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, positions, features = x.shape
        parts = x.view(batch, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        out = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return out.transpose(1, 2).reshape(batch, positions, features // 3)


def lengths() -> list[Case]:
    """Sizes that are and are not whole vectors, tiles and blocks."""
    return [
        _case("one query", _qkv((2, 3), 1, 9, 5, 4)),
        _case("one key", _qkv((2, 3), 5, 1, 4, 3)),
        _case("odd", _qkv((2, 3), 17, 33, 20, 20)),
        _case("another width", _qkv((1, 2), 7, 16, 8, 21)),
        _case("2-d", _qkv((), 5, 7, 4, 4)),
        _case("3-d", _qkv((3,), 5, 7, 4, 4), scale=0.3),
        _case("5-d", _qkv((2, 2, 3), 5, 7, 4, 6), is_causal=True),
        _case("several blocks", _qkv((1, 2), 70, 150, 16, 16)),
        _case(
            "fewer leading dimensions", (_normal(2, 3, 5, 4), _normal(3, 7, 4), _normal(1, 7, 4))
        ),
        Case("joined", Joined(3, False), (_normal(2, 6, 3 * 3 * 8),), atol=2e-6),
        Case("joined causal", Joined(2, True), (_normal(2, 19, 3 * 2 * 4),), atol=2e-6),
    ]


def masks() -> list[Case]:
    bias = _normal(2, 1, 17, 33)
    cut = torch.where(_seen(17, 33), 0.0, -torch.inf)
    long = _seen(70, 150)
    return [
        _case("causal", _qkv((2, 3), 17, 17, 20, 20), is_causal=True),
        _case("causal, more keys", _qkv((2, 1), 17, 33, 8, 8), is_causal=True),
        _case("causal, fewer keys", _qkv((1, 2), 33, 17, 8, 8), is_causal=True),
        _case("causal, several blocks", _qkv((1, 1), 150, 150, 8, 16), is_causal=True),
        _case("bool", (*_qkv((2, 3), 17, 33, 20, 20), _seen(17, 33))),
        _case("bool of a batch", (*_qkv((2, 3), 17, 33, 8, 8), _seen(2, 1, 1, 33))),
        _case("bool of a query", (*_qkv((2, 3), 17, 33, 8, 8), _seen(3, 17, 1))),
        _case("bool 5-d", (*_qkv((2, 2, 3), 5, 7, 4, 6), _seen(5, 7))),
        _case("bool, several blocks", (*_qkv((1, 2), 70, 150, 8, 8), long)),
        Case(
            "float",
            Function(lambda q, k, v: scaled_dot_product_attention(q, k, v, bias * 2)),
            _qkv((2, 3), 17, 33, 20, 20),
            atol=2e-6,
        ),
        Case(
            "float with -inf",
            Function(lambda q, k, v: scaled_dot_product_attention(q, k, v, cut.clone())),
            _qkv((2, 3), 17, 33, 20, 20),
            atol=2e-6,
        ),
        _case("float with a gradient", (*_qkv((2, 3), 5, 7, 4, 4), _normal(5, 7))),
    ]


def dtypes() -> list[Case]:
    """Half precision is summed up in float32 and rounded once, as PyTorch does."""
    cases = []
    for dtype, tolerance in (
        (torch.bfloat16, 2e-2),
        (torch.float16, 4e-3),
        (torch.float64, 1e-12),
    ):
        inputs = tuple(x.to(dtype) for x in _qkv((2, 3), 17, 33, 20, 20))
        for options in ({"is_causal": True}, {"scale": 0.2}):
            case = _case(f"{dtype} {options}", inputs, **options)
            cases.append(replace(case, rtol=tolerance, atol=tolerance))
    return cases


class Padded(nn.Module):
    """nn.MultiheadAttention over sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]


def groups_and_layers() -> list[Case]:
    padding = torch.arange(9) >= torch.tensor([[5], [9]])
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    return [
        _case("grouped heads", _qkv((2, 6), 17, 33, 8, 12, groups=2), enable_gqa=True),
        _case(
            "grouped heads, causal",
            _qkv((1, 4), 17, 17, 8, 8, groups=1),
            enable_gqa=True,
            is_causal=True,
        ),
        Case("MultiheadAttention", Padded(), (_normal(2, 9, 16), padding), rtol=1e-4, atol=1e-5),
        Case("TransformerEncoderLayer", layer, (_normal(2, 9, 16),), rtol=1e-4, atol=1e-5),
    ]
