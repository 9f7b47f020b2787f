"""The example's scripts without Slurm: mpirun of MPICH and of Open MPI, and torchrun, at once."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.distributed.processes import Place, alone_environ, ended

PATIENCE_S = 180.0
MPIRUNS = ("mpirun.mpich", "mpirun.openmpi")
ABSENT = [name for name in MPIRUNS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"no {ABSENT}: apt install mpich openmpi-bin"),
]
# Open MPI wants to be asked twice by root, and counts two cores as two places.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


def start(place: Place, script: str, checkpoints: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", script, "--num-epochs=1", f"--checkpoint-folder={checkpoints}"],
        cwd=place.folder, env=alone_environ(**environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def start_mpirun(place: Place, name: str, folder: Path) -> subprocess.Popen[str]:
    """With a folder first on the path in which `mpirun` is the program called `name`."""
    folder.mkdir()
    # No link: MPICH looks for its other programs beside the name that it was called by.
    (folder / "mpirun").write_text(f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')
    (folder / "mpirun").chmod(0o755)
    path = f"{folder}:{alone_environ()['PATH']}"
    return start(place, "submit_mpirun.sh", name, **OPEN_MPI, PATH=path)


def test_every_launcher_trains_to_the_same(place: Place, tmp_path: Path) -> None:
    with ExitStack() as stack:
        jobs = {name: start_mpirun(place, name, tmp_path / name) for name in MPIRUNS}
        jobs["torchrun"] = start(place, "submit_torchrun.sh", "torchrun")
        for job in jobs.values():
            stack.enter_context(ended(job))
        for name, job in jobs.items():
            out, _ = job.communicate(timeout=PATIENCE_S)
            assert job.returncode == 0, f"{name}: {out}"
            assert out.count("Test Accuracy") == 1
    states = [place.state(name) for name in jobs]
    for state in states:
        assert state["progress"]["step"] == 93
        model = state["model"]
        assert all((model[key] == states[0]["model"][key]).all() for key in model)
