"""`samba.optim.SGD`"""

from typing import Any

import torch

from sambaflow.samba.optim.optimizer import SambaOptimizer, checked_options


class SGD(SambaOptimizer, torch.optim.SGD):
    """Stochastic gradient descent with momentum; `weight_decay` is an L2 penalty."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        max_grad_norm: float | None = None,
        fp32_params: bool = False,
        argin_region_name: str = "",
        **options: Any,
    ) -> None:
        with checked_options("SGD"):
            torch.optim.SGD.__init__(
                self, params, lr, momentum, dampening, weight_decay, nesterov, **options
            )
        self._set_device_options(max_grad_norm, fp32_params, argin_region_name)
