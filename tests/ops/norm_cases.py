"""Normalisation over its options."""

from __future__ import annotations

import torch
from torch import nn

from tests.ops.against_eager import Case

_GENERATOR = torch.Generator().manual_seed(29)


def norms() -> list[Case]:
    def case(name: str, layer: nn.Module, *shape: int) -> Case:
        return Case(name, layer, (torch.randn(shape, generator=_GENERATOR),), 5e-5, 1e-5)

    spaces = {1: (8,), 2: (5, 6), 3: (3, 4, 5)}
    cases = []
    for rank, space in spaces.items():
        batch, instance = getattr(nn, f"BatchNorm{rank}d"), getattr(nn, f"InstanceNorm{rank}d")
        cases += [
            case(f"batch {rank}d", batch(3), 4, 3, *space),
            case(f"batch {rank}d plain", batch(3, affine=False), 4, 3, *space),
            case(f"batch {rank}d untracked", batch(3, track_running_stats=False), 4, 3, *space),
            case(f"instance {rank}d", instance(3), 2, 3, *space),
            case(f"instance {rank}d affine", instance(3, affine=True), 2, 3, *space),
        ]
    return [
        *cases,
        case("instance tracked", nn.InstanceNorm2d(3, track_running_stats=True), 2, 3, 5, 6),
        case("group", nn.GroupNorm(3, 6), 2, 6, 4, 5),
        case("group plain", nn.GroupNorm(2, 6, affine=False), 2, 6, 4),
        case("group eval of one channel each", nn.GroupNorm(6, 6).eval(), 2, 6, 4),
        case("instance eval", nn.InstanceNorm1d(3, track_running_stats=True).eval(), 2, 3, 5),
        case("layer of a vector", nn.LayerNorm(6), 6),
        case("layer without bias", nn.LayerNorm([5, 6], bias=False), 2, 3, 5, 6),
        case("rms", nn.RMSNorm([5, 6], eps=1e-3), 2, 3, 5, 6),
        case("rms plain", nn.RMSNorm(6, elementwise_affine=False), 2, 3, 6),
    ]
