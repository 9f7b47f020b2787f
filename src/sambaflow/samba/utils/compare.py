"""`assert_close`: does the device agree with the host?"""

from __future__ import annotations

from typing import Any

import torch

from sambaflow.logging import no_effect
from sambaflow.samba.sambatensor import to_torch
from sambaflow.samba.utils import argparser

# Results are fp32 on both sides: this leaves room for another order of summation, and is far
# below what programs written for bf16 hardware ask for (3e-3 and more).
THRESHOLD = 1e-4
RTOL = 1e-3


def assert_close(
    a: Any,
    b: Any,
    name: str = "",
    threshold: float | None = None,
    rtol: float | None = None,
    visualize: bool = False,
) -> float:
    """AssertionError unless |a - b| <= threshold + rtol * max(|a|, |b|) everywhere.

    The rule is symmetric: programs give the two in either order.  `threshold` and `rtol` default
    to `--absolute-numeric-threshold` and `--relative-numeric-threshold`, else to THRESHOLD and
    RTOL.  A NaN agrees with a NaN and an infinity with the same infinity.  Returns the largest
    |a - b|.
    """
    if visualize:
        no_effect("assert_close(visualize=True)", "nothing is drawn")
    first, second = (to_torch(value).detach().double() for value in (a, b))
    if first.numel() != second.numel():
        raise AssertionError(
            f"{name}: shapes {tuple(first.shape)} and {tuple(second.shape)} differ"
        )
    second = second.reshape(first.shape)
    absolute = _tolerance(threshold, "absolute_numeric_threshold", THRESHOLD)
    relative = _tolerance(rtol, "relative_numeric_threshold", RTOL)
    same = (first == second) | (first.isnan() & second.isnan())
    difference = torch.where(same, 0.0, (first - second).abs())
    allowed = absolute + relative * torch.maximum(first.abs(), second.abs())
    # An infinite or NaN difference is never within a tolerance that is infinite or NaN itself.
    wrong = ~same & ~((difference <= allowed) & difference.isfinite())
    if wrong.any():
        raise AssertionError(_message(name, first, second, difference, wrong, absolute, relative))
    return float(difference.max()) if difference.numel() else 0.0


def _tolerance(given: float | None, setting: str, default: float) -> float:
    if given is not None:
        return given
    chosen = argparser.current_settings().get(setting)
    return default if chosen is None else chosen


def _message(
    name: str,
    first: torch.Tensor,
    second: torch.Tensor,
    difference: torch.Tensor,
    wrong: torch.Tensor,
    absolute: float,
    relative: float,
) -> str:
    ranked = torch.where(wrong, difference.nan_to_num(torch.inf, torch.inf), -1.0)
    place = int(ranked.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), first.shape))
    return (
        f"{name or 'tensor'}: {int(wrong.sum())} of {wrong.numel()} elements differ by more than "
        f"{absolute:g} + {relative:g} * |value|; the largest at {index}: "
        f"{first.flatten()[place]:.7g} against {second.flatten()[place]:.7g}"
    )
