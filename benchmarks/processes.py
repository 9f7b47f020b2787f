"""The peers as `bench.py` sees them: processes that run steps when they are told to."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("peer.py")


class UnpreparedPeerError(Exception):
    """The peer has no form of the case, fails, or is not ready in time."""


class Peer:
    """A process that has prepared a case; a call runs so many steps."""

    def __init__(
        self, case: str, name: str, threads: int, folder: Path, limit_seconds: float
    ) -> None:
        command = [sys.executable, str(SCRIPT), case, name, str(threads), str(folder)]
        count = str(threads)
        environ = {**os.environ, "SN_NUM_THREADS": count, "OMP_NUM_THREADS": count}
        environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            ready = self._answer(limit_seconds)
        except UnpreparedPeerError:
            self.stop()
            raise
        if "skipped" in ready:
            self.stop()
            raise UnpreparedPeerError(ready["skipped"])
        self.flops: int = ready["flops"]

    def __call__(self, steps: int) -> None:
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        self._answer(None)

    def _answer(self, limit_seconds: float | None) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], limit_seconds)[0]:
            raise UnpreparedPeerError(f"not ready after {limit_seconds:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise UnpreparedPeerError(f"its process ended with code {self.process.wait()}")
        return json.loads(line)

    def stop(self) -> None:
        """End it, with the compilers it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def prepared(
    case: str, names: Iterable[str], threads: int, folder: Path, limit_seconds: float, jobs: int
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are ready, and why the others are not; `jobs` prepare at a time."""
    found: dict[str, Peer] = {}
    skipped: dict[str, str] = {}

    def start(name: str) -> None:
        try:
            found[name] = Peer(case, name, threads, folder, limit_seconds)
        except UnpreparedPeerError as error:
            skipped[name] = str(error)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(start, names))
    return {name: found[name] for name in names if name in found}, skipped
