"""What transformers need beyond layers and products: experts, histograms, normed weights, views of
memory by strides.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from tests.ops.against_eager import Case, Function

_grouped_mm = getattr(functional, "grouped_mm", torch.ops.aten._grouped_mm)  # as in 2.9
_GENERATOR = torch.Generator().manual_seed(12)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _of_rows(x: torch.Tensor, matrices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return _grouped_mm(x, matrices, offs=offsets) ** 2


def _of_sums(x: torch.Tensor, y: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return _grouped_mm(x.t(), y, offs=offsets) ** 2


def _counts(x: torch.Tensor) -> torch.Tensor:
    return x.nanmean() * torch.histc(x, 5, min=-1, max=2)


def cases() -> list[Case]:
    offsets = torch.tensor([2, 2, 5], dtype=torch.int32)
    values = torch.tensor([-1.0, -0.5, 0.0, 0.1999, 2.0, 2.1, -3.0, torch.nan, 1.4])
    return [
        Case("experts of rows", Function(_of_rows), (_normal(5, 8), _normal(3, 8, 12), offsets)),
        Case("experts of sums", Function(_of_sums), (_normal(5, 8), _normal(5, 12), offsets)),
        Case("histc", Function(_counts), (values,)),
        Case("rows of memory", _strided((3, 1, 4), (4, 4, 1), 0), (_normal(12),)),
        Case("columns of memory", _strided((3, 1, 4), (1, 9, 3), 2), (_normal(20),)),
        Case("weight_norm Conv1d", weight_norm(nn.Conv1d(4, 6, 3), dim=2), (_normal(2, 4, 9),)),
        Case("weight_norm Linear", weight_norm(nn.Linear(4, 6)), (_normal(2, 4),)),
    ]


def _strided(size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> Function:
    return Function(lambda x: torch.as_strided(x * 1, size, stride, offset) * 2)
