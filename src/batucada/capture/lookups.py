"""The gradient of an embedding is dense, `sparse=True` or not: an optimizer's step is the same."""

from __future__ import annotations

import torch

from batucada.capture.dispatcher import instead_of


@instead_of("embedding_backward")
def _backward(
    grad: torch.Tensor, indices: torch.Tensor, rows: int, padding: int, scale: bool, sparse: bool
) -> torch.Tensor:
    return torch.ops.aten.embedding_dense_backward(grad, indices, rows, padding, scale)
