"""Ranks of a data-parallel run."""

from __future__ import annotations

from torch import distributed

import batucada
from sambaflow.logging import no_effect


def _initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def get_rank() -> int:
    return distributed.get_rank() if _initialized() else 0


def get_world_size() -> int:
    return distributed.get_world_size() if _initialized() else 1


def is_main_process() -> bool:
    return get_rank() == 0


def initialize() -> None:
    """Join the processes that a launcher started; programs expect it of `run --data-parallel`."""
    batucada.join()


def fix_rdu_affinity() -> None:
    no_effect("samba.utils.fix_rdu_affinity")
