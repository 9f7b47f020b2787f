"""Models and tensors into SambaFlow's and back: `samba.from_torch_model_`, `samba.to_torch`, …"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

import batucada
from batucada.errors import OptionError
from sambaflow.samba.nn.parameter import convert
from sambaflow.samba.sambatensor import SambaTensor, from_torch_tensor


def from_torch_model_(model: nn.Module, parent_module_prefix: str | None = None) -> nn.Module:
    """Convert `model` in place: names for its modules, SambaParameters for its parameters.

    Buffers stay torch tensors.  Converting again changes nothing.  Returns `model`.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(
            f"samba.from_torch_model_ takes a torch.nn.Module, not {type(model).__name__}"
        )
    prefix = f"{parent_module_prefix}__" if parent_module_prefix else ""
    for path, module in model.named_modules():
        # A model's own attribute `name` is the model's business.
        if not hasattr(module, "name"):
            module.name = prefix + batucada.symbol_name(model, path)  # type: ignore[assignment]
    for path, parameter in model.named_parameters():
        convert(parameter, prefix + batucada.symbol_name(model, path))
    return model


from_torch_ = from_torch_model_
from_torch_model = from_torch_model_
from_torch = from_torch_tensor


def from_named_dict(tensors: Mapping[str, torch.Tensor]) -> list[SambaTensor]:
    """Each tensor under its key, as inputs of `samba.session.run`."""
    return [from_torch_tensor(tensor, name) for name, tensor in tensors.items()]


@contextlib.contextmanager
def patched_torch() -> Iterator[None]:
    """Surrounds a run of the model on the host.  Nothing is patched: torch runs it as it is."""
    yield


def is_internal() -> bool:
    """Whether this is a build for the vendor's own use: never."""
    return False
