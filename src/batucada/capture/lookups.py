"""The gradient of an embedding is dense, `sparse=True` or not: an optimizer's step is the same."""

from __future__ import annotations

import torch

from batucada.capture.attention import INSTEAD


def _backward(
    grad: torch.Tensor, indices: torch.Tensor, rows: int, padding: int, scale: bool, sparse: bool
) -> torch.Tensor:
    return torch.ops.aten.embedding_dense_backward(grad, indices, rows, padding, scale)


INSTEAD.impl("embedding_backward", _backward, "AutogradMeta")
