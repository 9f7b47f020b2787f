"""`SambaParameter`: a parameter that knows its name on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from batucada.errors import OptionError


class SambaParameter(nn.Parameter):
    """Of given data, or of a `shape` and `dtype` that `materializer(parameter)` fills at once."""

    sn_name: str = ""

    def __new__(
        cls,
        data: torch.Tensor | None = None,
        requires_grad: bool = True,
        *,
        shape: Iterable[int] | None = None,
        dtype: torch.dtype | None = None,
        materializer: Callable[[SambaParameter], Any] | None = None,
    ) -> SambaParameter:
        if data is None:
            if shape is None:
                raise OptionError("a SambaParameter needs data, or a shape and a materializer")
            data = torch.zeros(tuple(shape), dtype=dtype)
        made = super().__new__(cls, data, requires_grad)
        if materializer is not None:
            with torch.no_grad():
                made.copy_(torch.as_tensor(materializer(made)))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> SambaParameter:
        if id(self) in memo:
            return memo[id(self)]
        made = type(self)(self.data.clone(), self.requires_grad)
        made.sn_name = self.sn_name
        memo[id(self)] = made
        return made


def convert(parameter: nn.Parameter, name: str) -> None:
    """Make `parameter` a SambaParameter called `name`, in place.

    The object stays the same one, so optimizers and modules that share it keep it.
    """
    if type(parameter) is nn.Parameter:
        parameter.__class__ = SambaParameter
    if isinstance(parameter, SambaParameter):
        parameter.sn_name = name
