"""`weight_norm_`: a weight as a magnitude and a direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def weight_norm_(layer: nn.Module, name: str = "weight") -> nn.Module:
    """Replace the parameter `name` by `<name>_magnitude` and `<name>_direction`, in place.

    weight = magnitude * direction / |direction|, the norm taken over every dimension but the first
    (Salimans and Kingma, 2016, arXiv:1602.07868).  Call it before samba.from_torch_model_.
    """
    weight = getattr(layer, name).detach()
    del layer._parameters[name]
    layer.register_parameter(f"{name}_magnitude", nn.Parameter(_norm(weight)))
    layer.register_parameter(f"{name}_direction", nn.Parameter(weight.clone()))

    def compute(module: nn.Module, _inputs: Any) -> None:
        direction = getattr(module, f"{name}_direction")
        magnitude = getattr(module, f"{name}_magnitude")
        object.__setattr__(module, name, direction * (magnitude / _norm(direction)))

    layer.register_forward_pre_hook(compute)
    return layer


def _norm(tensor: torch.Tensor) -> torch.Tensor:
    dims = list(range(1, tensor.dim()))
    return tensor.square().sum(dims, keepdim=True).sqrt() if dims else tensor.abs()
