"""Dimensions whose extent varies, which a static program has not: what programs annotate with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DimInfo:
    """The extents that a dynamic dimension may have."""

    min: int
    max: int
    factor: int = 1
