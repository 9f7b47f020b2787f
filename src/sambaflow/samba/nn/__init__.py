"""`samba.nn`: torch's modules, and the classes that SambaFlow adds to them."""

from typing import Any

from torch import nn as torch_nn

from sambaflow.samba.nn.module import Module
from sambaflow.samba.nn.parameter import SambaParameter

__all__ = ["Module", "SambaParameter"]


def __getattr__(name: str) -> Any:
    return getattr(torch_nn, name)
