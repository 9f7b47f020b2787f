"""Which of how many processes is this?  What the launcher that started it says in its environment.

The innermost launcher counts: mpirun in a Slurm job is mpirun, torchrun under srun is torchrun, and
a program that a batch script starts without srun is a single process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from socket import gethostname

from batucada.errors import LaunchError

LOOPBACK = "127.0.0.1"
_FIRST_RESERVED_STEP = 0xFFFF0000  # Slurm's numbers of the batch, interactive and extern steps


@dataclass(frozen=True, slots=True)
class Launch:
    """A process's place among those that were started with it.

    `address` is the host of rank 0, as far as this rank knows, and `port` where it listens; without
    a port, one is derived from `job`, which is the same in all processes of a job and in those of
    no other.  `exchanges` says that the launcher has an exchange of values (PMI), through which
    rank 0 tells both.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    job: str
    address: str = ""
    port: int = 0
    exchanges: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size} ({self.launcher})"


def detect(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """None for a process that was started alone.  LaunchError for an environment that contradicts
    itself.
    """
    for finder in (_torchrun, _open_mpi, _hydra, _slurm):
        found = finder(environ)
        if found is not None:
            return _checked(_with_given_address(found, environ))
    return None


def _torchrun(environ: Mapping[str, str]) -> Launch | None:
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return None
    rank, size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    local = _number(environ, "LOCAL_RANK", rank)
    restart = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Launch("torchrun", rank, size, local, f"{environ.get('TORCHELASTIC_RUN_ID')}/{restart}")


def _open_mpi(environ: Mapping[str, str]) -> Launch | None:
    if "OMPI_COMM_WORLD_RANK" not in environ:
        return None
    rank, size = _number(environ, "OMPI_COMM_WORLD_RANK"), _number(environ, "OMPI_COMM_WORLD_SIZE")
    local = _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK", rank)
    alone = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", size) == size
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid", "")
    address = LOOPBACK if alone else _host_of_mpirun(environ)
    return Launch("mpirun of Open MPI", rank, size, local, job, address)


def _host_of_mpirun(environ: Mapping[str, str]) -> str:
    """From a URI such as `1130823680.0;tcp://10.0.0.1,192.168.0.1:52531`."""
    for variable in ("OMPI_MCA_orte_hnp_uri", "PMIX_SERVER_URI2"):
        found = re.search(r"tcp4?://([\d.]+)[,:]", environ.get(variable, ""))
        if found is not None and not found[1].startswith("127."):
            return found[1]
    return ""


def _hydra(environ: Mapping[str, str]) -> Launch | None:
    """MPICH and its relatives.  Slurm's own PMI has the same variables without the local rank."""
    if "PMI_RANK" not in environ or "MPI_LOCALRANKID" not in environ:
        return None
    rank, size = _number(environ, "PMI_RANK"), _number(environ, "PMI_SIZE")
    local, alone = _number(environ, "MPI_LOCALRANKID"), environ.get("MPI_LOCALNRANKS") == str(size)
    own = LOOPBACK if alone else environ.get("MPIR_CVAR_CH3_INTERFACE_HOSTNAME", gethostname())
    return Launch("mpirun of MPICH", rank, size, local, "", own, exchanges="PMI_FD" in environ)


def _slurm(environ: Mapping[str, str]) -> Launch | None:
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID") or ""
    if not step.isdigit() or int(step) >= _FIRST_RESERVED_STEP or "SLURM_PROCID" not in environ:
        return None
    rank, tasks = _number(environ, "SLURM_PROCID"), "SLURM_STEP_NUM_TASKS"
    size = _number(environ, tasks if tasks in environ else "SLURM_NTASKS")
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_RESTART_COUNT")
    job = ".".join([*(environ.get(name, "") for name in names), step])
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "")
    alone = environ.get("SLURM_STEP_NUM_NODES") == "1"
    first = next(expanded(nodes), "")
    local = _number(environ, "SLURM_LOCALID", rank)
    return Launch("srun", rank, size, local, job, LOOPBACK if alone else first)


def expanded(nodes: str) -> Iterator[str]:
    """The hosts of a list such as `sm-[01-03,7],gpu2`, in order."""
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        found = re.match(r"([^\[]*)\[([^\]]*)\](.*)", part)
        if found is None:
            yield part
            continue
        for numbers in found[2].split(","):
            low, _, high = numbers.partition("-")
            for number in range(int(low), int(high or low) + 1):
                yield from expanded(f"{found[1]}{number:0{len(low)}d}{found[3]}")


def _with_given_address(launch: Launch, environ: Mapping[str, str]) -> Launch:
    """MASTER_ADDR and MASTER_PORT, where they are set, are the user's word."""
    address = environ.get("MASTER_ADDR") or launch.address
    port = _number(environ, "MASTER_PORT", launch.port)
    return replace(launch, address=address, port=port)


def _number(environ: Mapping[str, str], variable: str, default: int | None = None) -> int:
    text = environ.get(variable, "").strip()
    if not text and default is not None:
        return default
    if not text.isdigit():
        raise LaunchError(f"{variable} is {text!r}; expected a whole number")
    return int(text)


def _checked(launch: Launch) -> Launch:
    if launch.rank >= launch.world_size:
        raise LaunchError(
            f"{launch.launcher} says that this is rank {launch.rank} of {launch.world_size}"
            " processes; ranks count from 0"
        )
    return launch
