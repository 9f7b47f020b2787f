"""`ctc_loss` as one operator of the graph.

PyTorch's reads the lengths while it is called.  While a model is captured, a function of ours
stands in its place, on the level of autograd; what is a run-time value stays one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from batucada.capture.dispatcher import OURS, instead_of

Tensor = torch.Tensor
Lengths = Tensor | Sequence[int]

OURS.define(
    "ctc(Tensor x, Tensor targets, Tensor frames, Tensor labels, int blank, int longest)"
    " -> (Tensor, Tensor)"
)
OURS.define(
    "ctc_backward(Tensor grad, Tensor x, Tensor targets, Tensor frames, Tensor labels,"
    " Tensor loss, Tensor paths, int blank, int longest, bool zero_infinity) -> Tensor"
)


class _Ctc(torch.autograd.Function):
    """The loss of each of the batch; see `ops/ctc.py`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int,
        longest: int, zero_infinity: bool,
    ) -> Tensor:  # fmt: skip
        loss, paths = torch.ops.batucada.ctc(x, targets, frames, labels, blank, longest)
        ctx.save_for_backward(x, targets, frames, labels, loss, paths)
        ctx.options = blank, longest, zero_infinity
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        found = torch.ops.batucada.ctc_backward(grad, *ctx.saved_tensors, *ctx.options)
        return found, None, None, None, None, None, None


@instead_of("ctc_loss.Tensor", "ctc_loss.IntList")
def _ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths,
    blank: int = 0, reduction: int = 1, zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    is_batch = log_probs.dim() == 3
    x = log_probs if is_batch else log_probs.unsqueeze(1)
    if not is_batch and targets.dim() == 1:
        targets = targets.unsqueeze(0)
    if not 0 <= blank < x.shape[2]:
        raise ValueError(f"ctc_loss: blank {blank} is not a class of {tuple(log_probs.shape)}")
    frames = _lengths("input_lengths", input_lengths, x.shape[1], x.shape[0])
    most = targets.numel() if targets.dim() == 1 else targets.shape[1]
    labels = _lengths("target_lengths", target_lengths, x.shape[1], most)
    longest = most if isinstance(target_lengths, Tensor) else max(target_lengths, default=0)
    loss: Tensor = _Ctc.apply(x, targets, frames, labels, blank, longest, zero_infinity)
    if zero_infinity:
        loss = torch.where(loss == torch.inf, 0.0, loss)
    if reduction == 1:
        return (loss / labels.clamp_min(1).to(loss.dtype)).mean()
    if reduction == 2:
        return loss.sum()
    return loss if is_batch else loss.squeeze(0)


def _lengths(name: str, given: Lengths, batch: int, most: int) -> Tensor:
    """int64 [batch]; numbers are checked here, those of a tensor when the program runs."""
    count = given.numel() if isinstance(given, Tensor) else len(given)
    if count != batch:
        raise ValueError(f"ctc_loss: {count} {name} for a batch of {batch}")
    if isinstance(given, Tensor):
        return given.reshape(batch).long()
    wrong = [length for length in given if not 0 <= length <= most]
    if wrong:
        raise ValueError(f"ctc_loss: {wrong[0]} in {name} is not in 0 to {most}")
    return torch.tensor(list(given), dtype=torch.int64)
