"""What SambaFlow programs ask of plain torch tensors, added to `torch.Tensor`.

After conversion a model still runs on the host with plain tensors and returns plain tensors, and
`state_dict()` holds plain tensors, so that a saved one loads anywhere.  Programs treat all of
them as SambaTensors: `.torch()`, `.torch_tensor()`, `out.host_memory = True` in forward.  A
subclass of `torch.Tensor` would answer those too, but it would stay in every pickle and slow every
operation; a few attributes that torch does not use cost neither.
"""

from __future__ import annotations

from typing import Any

import torch

from sambaflow.samba import device
from sambaflow.samba.sambatensor import SambaTensor, from_torch_tensor


def _self(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself: it is a torch tensor already."""
    return tensor


def _sn_grad(tensor: torch.Tensor) -> SambaTensor:
    """The device's gradient of a parameter of the traced model, of the last run with BCKWD."""
    session = device.current()
    return from_torch_tensor(session.gradient_of(tensor), f"{session.symbol_of(tensor)}__grad")


def _sn_data(tensor: torch.Tensor) -> SambaTensor:
    """A copy of the device's value of a parameter or buffer of the traced model."""
    session = device.current()
    return from_torch_tensor(session.value_of(tensor), session.symbol_of(tensor))


def _rdu(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a parameter or buffer of the traced model to the device."""
    device.current().set_value(tensor, tensor.detach())
    return tensor


ADDED: dict[str, Any] = {
    "torch": _self,
    "torch_tensor": _self,
    "sn_grad": property(_sn_grad),
    "sn_data": property(_sn_data),
    "rdu": _rdu,
    "host_memory": None,
    "mem_type": None,
    "batch_dim": None,
}


def extend_torch_tensor() -> None:
    """Add the attributes of `ADDED` to `torch.Tensor`, where it has none of that name."""
    for name, value in ADDED.items():
        if not hasattr(torch.Tensor, name):
            setattr(torch.Tensor, name, value)
