"""Ranks of a data-parallel run."""

from __future__ import annotations

import os

from torch import distributed

from batucada.errors import OptionError
from sambaflow.logging import no_effect

# (rank, world size) variables of mpirun (MPICH's Hydra, Open MPI), srun and torchrun.
_LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("RANK", "WORLD_SIZE"),
)
_DEFAULT_ADDRESS, _DEFAULT_PORT = "127.0.0.1", "29500"


def _initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def get_rank() -> int:
    return distributed.get_rank() if _initialized() else 0


def get_world_size() -> int:
    return distributed.get_world_size() if _initialized() else 1


def is_main_process() -> bool:
    return get_rank() == 0


def launched_as() -> tuple[int, int] | None:
    """Rank and world size that a launcher gave this process, None when it was started alone."""
    for rank, size in _LAUNCHERS:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return None


def initialize() -> None:
    """Join the processes that a launcher started; programs expect it of `run --data-parallel`."""
    place = launched_as()
    if place is None or _initialized():
        return
    rank, size = place
    os.environ.setdefault("MASTER_ADDR", _DEFAULT_ADDRESS)
    os.environ.setdefault("MASTER_PORT", _DEFAULT_PORT)
    try:
        distributed.init_process_group("gloo", rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"--data-parallel: process {rank} of {size} cannot join: {error}"
        ) from None


def fix_rdu_affinity() -> None:
    no_effect("samba.utils.fix_rdu_affinity")
