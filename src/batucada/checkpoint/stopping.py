"""When to stop: signals, and the time limit of the job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import datetime
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""`scancel --signal=TERM`, and what `sbatch --signal=USR1@60` sends ahead of the limit."""

_ASK_TIMEOUT_S = 20.0


class StopSignals:
    """Notes the first signal of SIGNALS instead of dying of it."""

    def __init__(self) -> None:
        self.received: str = ""
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Python lets the main thread alone install handlers; elsewhere nothing changes."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def remove(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name


def time_limit() -> float | None:
    """When Slurm will end this job, in seconds since the epoch; None without a limit or a job."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return float(end)
    return _asked(job) if shutil.which("squeue") else None


def _asked(job: str) -> float | None:
    """Slurm 22.05 and older do not set the variable."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"batucada: the time limit of job {job} is unknown: {error}", file=sys.stderr)
        return None
    try:
        return datetime.fromisoformat(done.stdout.strip()).timestamp()
    except ValueError:  # N/A: no limit
        return None
