"""What the optimizers have in common: options of the device, and state that follows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from batucada.errors import OptionError
from sambaflow.logging import no_effect
from sambaflow.samba import device


def _plain(method: Callable) -> Callable:
    """`method` without torch's decorator, which imports torch._dynamo (2 s, 160 MB) when called."""
    return getattr(method, "__wrapped__", method)


@contextlib.contextmanager
def checked_options(kind: str) -> Iterator[None]:
    """torch's refusal of a hyperparameter, as the error of a user's mistake."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise OptionError(f"samba.optim.{kind}: {error}") from None


class SambaOptimizer(torch.optim.Optimizer):
    """Mixed into torch's optimizers, before them.

    `max_grad_norm`: clip all gradients together to this norm.  `argin_region_name`: prefix of this
    optimizer's hyperparameters in `hyperparam_dict`.
    """

    max_grad_norm: float | None = None
    argin_region_name: str = ""
    # torch's schedulers warn of a step() that was not called; on the device a run makes it.
    _opt_called = True

    def _set_device_options(
        self, max_grad_norm: float | None, fp32_params: bool, argin_region_name: str
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise OptionError(f"max_grad_norm is {max_grad_norm}; expected a positive number")
        if fp32_params:
            no_effect("fp32_params", "parameters are always kept in the model's own dtype")
        self.max_grad_norm = max_grad_norm
        self.argin_region_name = argin_region_name

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: torch's three entries and the device's options."""
        own = ("max_grad_norm", "argin_region_name")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _plain(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        _plain(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state, as the last run on the device left it."""
        device.current().state_to_host(self)
        return _plain(torch.optim.Optimizer.state_dict)(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state, here and on the device."""
        _plain(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        device.current().state_to_device(self)

    def cpu(self) -> None:
        """Copy the state from the device to the host."""
        device.current().state_to_host(self)
