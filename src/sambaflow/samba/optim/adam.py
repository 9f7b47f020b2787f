"""`samba.optim.AdamW` and `samba.optim.Adam`"""

from typing import Any

import torch

from sambaflow.samba.optim.optimizer import SambaOptimizer, checked_options

# Defaults of SambaFlow's documented signature; torch's are (0.9, 0.999) and a decay of 0.01.
BETAS = (0.9, 0.997)
WEIGHT_DECAY = 0.0


class AdamW(SambaOptimizer, torch.optim.AdamW):
    """Adam with decoupled weight decay."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = BETAS,
        eps: float = 1e-08,
        weight_decay: float = WEIGHT_DECAY,
        amsgrad: bool = False,
        max_grad_norm: float | None = None,
        fp32_params: bool = False,
        argin_region_name: str = "",
        **options: Any,
    ) -> None:
        with checked_options("AdamW"):
            torch.optim.AdamW.__init__(
                self, params, lr, betas, eps, weight_decay, amsgrad, **options
            )
        self._set_device_options(max_grad_norm, fp32_params, argin_region_name)


class Adam(SambaOptimizer, torch.optim.Adam):
    """Adam; `weight_decay` is an L2 penalty."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = BETAS,
        eps: float = 1e-08,
        weight_decay: float = WEIGHT_DECAY,
        amsgrad: bool = False,
        max_grad_norm: float | None = None,
        fp32_params: bool = False,
        argin_region_name: str = "",
        **options: Any,
    ) -> None:
        with checked_options("Adam"):
            torch.optim.Adam.__init__(
                self, params, lr, betas, eps, weight_decay, amsgrad, **options
            )
        self._set_device_options(max_grad_norm, fp32_params, argin_region_name)
