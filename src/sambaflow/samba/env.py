"""`samba.env`: switches of the runtime."""

from sambaflow.logging import no_effect


def use_mock_samba_runtime() -> bool:
    """Whether runs only pretend: never, they compute."""
    return False


def _no_rounding(name: str) -> None:
    no_effect(f"samba.env.{name}", "arithmetic rounds to nearest")


def enable_conv_grad_accum_stoc() -> None:
    _no_rounding("enable_conv_grad_accum_stoc")


def enable_addbias_grad_accum_stoc() -> None:
    _no_rounding("enable_addbias_grad_accum_stoc")


def disable_sgd_stoc() -> None:
    """Arithmetic rounds to nearest already."""
