"""The example under a real Slurm: srun, sbatch, signals and the time limit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.distributed.processes import RUN, Place, ended
from tests.distributed.slurm import Slurm, missing, running_slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "Slurm is there"),
]
PATIENCE_S = 120.0
LONG = "--num-epochs=100000"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as started:
        yield started


def output(slurm: Slurm, place: Place, job: str) -> str:
    return (place.folder / f"{job}.out").read_text()


def said(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    return out


def test_two_jobs_of_srun_at_once(slurm: Slurm, place: Place) -> None:
    """With and without PMI; on one node they do not meet, and both come to the same."""
    kinds = {"plain": ["--mpi=none"], "pmi2": ["--mpi=pmi2"]}
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(
                ended(
                    slurm.start(
                        *("srun", "-n", "2", "--gres=rdu:1", *extra, "python", "data_parallel.py"),
                        *(*RUN, "--num-epochs=1", f"--checkpoint-folder={name}"),
                        cwd=place.folder,
                    )
                )
            )
            for name, extra in kinds.items()
        ]
        for job in jobs:
            out = said(job)
            assert out.count("Test Accuracy") == 1
            assert out.count("sn_create_session") == 2
    one, other = (place.state(name) for name in kinds)
    assert one["progress"] == other["progress"]
    assert one["progress"]["samples"] == 0
    assert all((one["model"][key] == other["model"][key]).all() for key in one["model"])


def test_scancel_stops_with_a_checkpoint_and_the_next_job_resumes(
    slurm: Slurm, place: Place
) -> None:
    script = ("submit_srun.sh", "--checkpoint-folder=signalled", "--checkpoint-steps=5")
    job = slurm.submit("--time=30", *script, LONG, cwd=place.folder)
    place.wait_for_checkpoint("signalled", PATIENCE_S)
    slurm.ask("scancel", "--signal=TERM", job)
    assert slurm.wait(job, PATIENCE_S) == "COMPLETED", output(slurm, place, job)
    stopped = re.search(r"SIGTERM: stopped after step (\d+)", output(slurm, place, job))
    assert stopped is not None, output(slurm, place, job)
    progress = place.state("signalled")["progress"]
    assert progress["step"] == int(stopped[1])

    job = slurm.submit(*script, f"--num-epochs={progress['epoch'] + 1}", cwd=place.folder)
    assert slurm.wait(job, PATIENCE_S) == "COMPLETED"
    assert f"Resumed after step {stopped[1]}, " in output(slurm, place, job)
    assert "Test Accuracy" in output(slurm, place, job)


def test_the_time_limit_stops_with_a_checkpoint(slurm: Slurm, place: Place) -> None:
    """Slurm's smallest limit is a minute; the example is told to stop 50 seconds before its end."""
    job = slurm.submit(
        *("--time=1", "--ntasks=1", "--signal=USR1@1", "submit_srun.sh", LONG),
        *("--checkpoint-folder=limited", "--before-limit=50"),
        cwd=place.folder,
    )
    assert slurm.wait(job, PATIENCE_S) == "COMPLETED", output(slurm, place, job)
    assert "the time limit is near" in output(slurm, place, job)
    assert place.state("limited")["progress"]["step"] > 0


def test_mpirun_in_a_batch_script(slurm: Slurm, place: Place) -> None:
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    job = slurm.submit(
        *("submit_mpirun.sh", "--num-epochs=1", "--checkpoint-folder=batch"),
        cwd=place.folder, **root,
    )  # fmt: skip
    assert slurm.wait(job, PATIENCE_S) == "COMPLETED", output(slurm, place, job)
    assert output(slurm, place, job).count("Test Accuracy") == 1
