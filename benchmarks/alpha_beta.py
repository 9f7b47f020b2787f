"""The time of a ring all-reduce: a latency for each message and a time for each byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """`alpha_us` is the latency of a message, `beta_us_per_byte` the time of a byte on a link."""

    name: str
    alpha_us: float
    beta_us_per_byte: float

    def all_reduce_us(self, ranks: int, size: int) -> float:
        """2 (p - 1) messages of n / p bytes, one after another: a ring's, as Gloo's is."""
        messages = 2 * (ranks - 1)
        return messages * (self.alpha_us + size / ranks * self.beta_us_per_byte)

    def record(self) -> dict[str, Any]:
        rate = round(1e-3 / self.beta_us_per_byte, 2)
        return {"network": self.name, "alpha_us": round(self.alpha_us, 2), "gb_per_s": rate}


def fitted(lines: Sequence[dict[str, Any]]) -> Network:
    """To lines of `ranks`, `bytes` and `us`, by least squares of the relative errors."""
    rows = np.array([[2 * (r["ranks"] - 1), 2 * (r["ranks"] - 1) * r["bytes"] / r["ranks"]]
                     for r in lines])  # fmt: skip
    times = np.array([line["us"] for line in lines])
    (alpha, beta), *_ = np.linalg.lstsq(rows / times[:, None], np.ones(len(times)), rcond=None)
    return Network("this machine", float(alpha), float(beta))


def efficiency(
    network: Network, ranks: int, step_us: float, buckets: Sequence[int], overlaps: bool
) -> float:
    """Of a step that takes `step_us` alone, two thirds of it the backward pass.  That hides the
    reduction of all buckets but the last, which is full when the backward pass ends.
    """
    times = [network.all_reduce_us(ranks, size) for size in buckets]
    hidden = min(sum(times[:-1]), step_us * 2 / 3) if overlaps else 0.0
    return step_us / (step_us + sum(times) - hidden)
