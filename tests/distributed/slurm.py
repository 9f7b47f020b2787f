"""A Slurm of one node in a folder of its own: munged, slurmctld and slurmd, on their own ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.distributed.processes import alone_environ, ended, free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "squeue", "scontrol")
READY_S = 30.0
RDUS = 8

CONF = """\
ClusterName=batucada
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=1000
ReturnToService=2
KillWait=5
MpiDefault=none
GresTypes=rdu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=rdu:{rdus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty when one can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmd and munged need root"
    return ""


class Slurm:
    """How to talk to it: the environment of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = alone_environ(SLURM_CONF=str(folder / "slurm.conf"))

    def start(self, *command: str, cwd: Path, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=cwd, env={**self.environ, **environ}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def submit(self, *arguments: str, cwd: Path, **environ: str) -> str:
        """The number of the job."""
        return self.ask("sbatch", "--parsable", "--output=%j.out", *arguments, cwd=cwd, **environ)

    def ask(self, *command: str, cwd: Path | None = None, **environ: str) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.folder, env={**self.environ, **environ},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def wait(self, job: str, seconds: float = 60) -> str:
        """Its final state."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            shown = self.ask("scontrol", "--oneliner", "show", "job", job)
            state = shown.partition("JobState=")[2].split()[0]
            if state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
                return state
            time.sleep(0.2)
        self.ask("scancel", "--signal=KILL", "--full", job)
        raise AssertionError(f"job {job} has not ended after {seconds} s")


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """Everything is in one temporary folder, and ends with the context."""
    with ExitStack() as stack:
        # pytest's own folders are closed to other users, of whom munge is one.
        folder = Path(tempfile.mkdtemp(prefix="batucada-slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        slurm = Slurm(folder)
        _configure(folder)
        stack.enter_context(ended(_munged(folder)))
        for daemon in ("slurmctld", "slurmd"):
            command = [daemon, "-D", "-f", str(folder / "slurm.conf")]
            stack.enter_context(ended(_daemon(command, folder, slurm.environ)))
        _wait_until_ready(slurm)
        stack.callback(_cancel_all, slurm)
        yield slurm


def _configure(folder: Path) -> None:
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir()
    ctld_port, slurmd_port = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(
        host=host, folder=folder, ctld_port=ctld_port, slurmd_port=slurmd_port, rdus=RDUS
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=rdu Count={RDUS}\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _munged(folder: Path) -> subprocess.Popen[bytes]:
    own = folder / "munge"
    (own / "key").write_bytes(os.urandom(128))
    (own / "key").chmod(0o400)
    for path in (own, own / "key"):
        shutil.chown(path, "munge", "munge")
    command = [
        "munged", "--foreground", f"--key-file={own}/key", f"--socket={folder}/munge.socket",
        f"--pid-file={own}/pid", f"--log-file={own}/log", f"--seed-file={own}/seed",
    ]  # fmt: skip
    shutil.chown(folder, "munge", "munge")  # where it makes its socket
    return _daemon(command, folder, os.environ, user="munge")


def _daemon(
    command: list[str], folder: Path, environ: Mapping[str, str], user: str | None = None
) -> subprocess.Popen[bytes]:
    spoken = (folder / f"{command[0]}.out").open("wb")
    with spoken:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=spoken, stderr=spoken, env=dict(environ),
            user=user, group=user, extra_groups=[] if user else None, cwd="/",
        )  # fmt: skip


def _wait_until_ready(slurm: Slurm) -> None:
    give_up = time.monotonic() + READY_S
    state = ""
    while time.monotonic() < give_up:
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%t %G"], env=slurm.environ,
            capture_output=True, text=True,
        )  # fmt: skip
        state = asked.stdout.strip() or asked.stderr.strip()
        if state == f"idle rdu:{RDUS}":
            return
        time.sleep(0.2)
    logs = "\n".join(
        f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
        for log in [*slurm.folder.glob("*.log"), *slurm.folder.glob("*.out")]
    )
    raise AssertionError(f"Slurm is not ready after {READY_S} s but {state!r}\n{logs}")


def _cancel_all(slurm: Slurm) -> None:
    """Their processes are slurmd's children's, and would outlive it."""
    slurm.ask("scancel", "--full", "--signal=KILL", "--state=RUNNING", "--user=root")
    slurm.ask("scancel", "--user=root")
    give_up = time.monotonic() + 10
    while slurm.ask("squeue", "--noheader") and time.monotonic() < give_up:
        time.sleep(0.2)
