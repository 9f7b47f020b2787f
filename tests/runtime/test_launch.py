"""Which launcher started this process, and how the processes of a job find one another."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from batucada.errors import LaunchError, ReplicaError
from batucada.runtime import rendezvous
from batucada.runtime.launch import Launch, detect, expanded
from batucada.runtime.rendezvous import meet, roll_call

SRUN = {
    "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "sm-[02-03]",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_CLUSTER_NAME": "c",
}  # fmt: skip
PMI2 = {"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "9"}
MPICH = {
    "PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "1130823681",
    "OMPI_MCA_orte_hnp_uri": "1130823680.0;tcp://10.0.0.2,192.168.1.2:52531;tcp6://[fd00::2]:46743",
}  # fmt: skip
TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "head", "MASTER_PORT": "9",
    "TORCHELASTIC_RUN_ID": "x",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (SRUN, Launch("srun", 3, 4, 1, "c.17..0", "sm-02")),
        (SRUN | PMI2, Launch("srun", 3, 4, 1, "c.17..0", "sm-02")),
        (SRUN | MPICH, Launch("mpirun of MPICH", 1, 2, 1, "", "127.0.0.1", exchanges=True)),
        (SRUN | OPEN_MPI, Launch("mpirun of Open MPI", 2, 4, 0, "1130823681", "10.0.0.2")),
        (SRUN | TORCHRUN, Launch("torchrun", 5, 8, 1, "x/0", "head", 9)),
        (SRUN | {"MASTER_ADDR": "a"}, Launch("srun", 3, 4, 1, "c.17..0", "a")),
        (SRUN | {"SLURM_STEP_NUM_NODES": "1"}, Launch("srun", 3, 4, 1, "c.17..0", "127.0.0.1")),
    ],
    ids=["srun", "pmi2", "mpich in a step", "open mpi in a step", "torchrun", "address", "a node"],
)
def test_the_innermost_launcher_counts(environ: dict[str, str], expected: Launch) -> None:
    assert detect(environ) == expected


@pytest.mark.parametrize("step", [None, "4294967291", "4294967290"])
def test_a_batch_script_is_one_process(step: str | None) -> None:
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "17"}
    assert detect(environ | ({"SLURM_STEP_ID": step} if step else {})) is None


def test_a_senseless_environment_is_an_error() -> None:
    with pytest.raises(LaunchError, match="rank 9 of 8"):
        detect(TORCHRUN | {"RANK": "9"})
    with pytest.raises(LaunchError, match="PMI_SIZE is 'two'"):
        detect(MPICH | {"PMI_SIZE": "two"})


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("sm-01", ["sm-01"]),
        ("sm-[01-03,7],gpu2", ["sm-01", "sm-02", "sm-03", "sm-7", "gpu2"]),
        ("r[1-2]n[08-09]", ["r1n08", "r1n09", "r2n08", "r2n09"]),
        ("", []),
    ],
)
def test_node_lists(nodes: str, expected: list[str]) -> None:
    assert list(expanded(nodes)) == expected


def ranks(job: str, size: int = 2, **fields: object) -> list[Launch]:
    launch = Launch("srun", 0, size, 0, job, "127.0.0.1")
    return [replace(launch, rank=rank, **fields) for rank in range(size)]  # type: ignore[arg-type]


def joined(launch: Launch, seconds: float) -> TCPStore:
    store = meet(launch, seconds)
    roll_call(store, launch, seconds, gone=lambda: "")
    return store


def test_two_jobs_of_the_same_ports_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_LAST_PORT", rendezvous._FIRST_PORT + rendezvous._CANDIDATES)
    everyone = [*ranks("one"), *ranks("two")]
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda launch: joined(launch, 20), everyone))
    stores[0].set("from", "one")
    stores[2].set("from", "two")
    assert [store.get("from") for store in stores] == [b"one", b"one", b"two", b"two"]


def test_a_missing_rank_is_named() -> None:
    with pytest.raises(ReplicaError, match="ranks 1, 2 did not join"):
        joined(ranks("missing", 3)[0], 0.2)
    with pytest.raises(ReplicaError, match="rank 0 does not answer at"):
        meet(ranks("nobody")[1], 0.2)


def test_a_port_that_is_taken_is_an_error() -> None:
    taken = pytest.raises(ReplicaError, match="is taken by another program; set MASTER_PORT")
    with socket.create_server(("", 0)) as other, taken:
        meet(ranks("j", port=other.getsockname()[1])[0], 5)


def test_another_job_at_the_given_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    kept = rendezvous._served(ranks("theirs", port=port)[0], [port])
    with pytest.raises(ReplicaError, match="there is the job 'theirs'"):
        meet(ranks("ours", port=port)[1], 0.3)
    twice = ranks("theirs", port=port)[1]
    kept.add("batucada/joined/theirs/1", 1)
    with pytest.raises(ReplicaError, match="another process has this rank"):
        joined(twice, 1)
