"""The updates of optimizers that take a parameter for a matrix: Adafactor and Muon."""

from __future__ import annotations

import math

import torch

from batucada.capture.update import Update, Value
from batucada.ir.types import TORCH_NAMES


def adafactor(u: Update) -> None:
    """The running average of squares is kept as a product of its rows' and columns' means."""
    p, g, step = u.parameter, u.gradient, u.step()
    dtype, elements = p.node.type.dtype, math.prod(p.shape)
    eps1, eps2 = u.options["eps1"], u.options["eps2"]
    if eps1 is None:
        eps1 = torch.finfo(getattr(torch, TORCH_NAMES[u.stored])).eps
    rate = u.hyper("lr").to("f64").minimum(1 / step.sqrt()).to(dtype)
    rate = (p.norm() / math.sqrt(elements)).maximum(eps2) * rate
    weight = (step ** u.options["beta2_decay"]).to(dtype)
    average = _factored(u, weight, eps1) if len(p.shape) > 1 else _whole(u, weight)
    update = average.maximum(eps1 * eps1).apply("rsqrt") * g
    excess = (update.norm() / (math.sqrt(elements) * u.options["d"])).maximum(1.0)
    kept = p * (1 - u.hyper("lr") * u.hyper("weight_decay"))
    u.set_parameter(kept - (rate / excess) * update)


def _factored(u: Update, weight: Value, eps: float) -> Value:
    """Over the last two dimensions."""
    square, shape = u.gradient * u.gradient, u.parameter.shape
    rows = u.state("row_var", (*shape[:-1], 1)).moved_to(square.mean(-1), weight)
    columns = u.state("col_var", (*shape[:-2], 1, shape[-1])).moved_to(square.mean(-2), weight)
    u.keep("row_var", rows)
    u.keep("col_var", columns)
    return rows * columns / rows.mean(-2).maximum(eps)


def _whole(u: Update, weight: Value) -> Value:
    moved = u.state("variance").moved_to(u.gradient * u.gradient, weight)
    u.keep("variance", moved)
    return moved


def muon(u: Update) -> None:
    """The momentum, made nearly orthogonal, is the update."""
    p, g, momentum = u.parameter, u.gradient, u.hyper("momentum")
    average = u.state("momentum_buffer").moved_to(g, 1 - momentum)
    u.keep("momentum_buffer", average)
    update = g.moved_to(average, momentum) if u.options["nesterov"] else average
    lr = u.hyper("lr")
    scale = _lr_scale(u.options["adjust_lr_fn"], *p.shape)
    kept = p * (1 - lr * u.hyper("weight_decay"))
    u.set_parameter(kept - lr * scale * _orthogonal(u, update).to(p.node.type.dtype))


def _orthogonal(u: Update, matrix: Value) -> Value:
    """Newton-Schulz iterations, each of whose matrices PyTorch keeps in bf16."""
    a, b, c = (u.options[f"ns_coefficient{i}"] for i in (1, 2, 3))
    tall = matrix.shape[0] > matrix.shape[1]
    x = _rounded(matrix.transposed() if tall else matrix)
    x = _rounded(x / _rounded(_rounded(x.norm()).maximum(u.options["eps"])))
    for _ in range(int(u.options["ns_steps"])):
        gram = _rounded(x @ x.transposed())
        polynomial = _rounded(b * gram + c * (gram @ gram))
        x = _rounded(a * x + polynomial @ x)
    return x.transposed() if tall else x


def _rounded(value: Value) -> Value:
    return value.to("f32").to("bf16").to("f32")


def _lr_scale(name: str | None, rows: int, columns: int) -> float:
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    ratio = rows / columns
    return math.sqrt(ratio if name == "spectral_unclamped" else max(1, ratio))
