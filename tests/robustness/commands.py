"""Runs programs as a shell does, each in a process of its own."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.apps import ROOT

FFN = ROOT / "examples" / "ffn_mnist" / "sn_boilerplate_main.py"
LOGREG = ROOT / "examples" / "logreg" / "logreg.py"
SAMPLE = ROOT / "examples" / "data" / "MNIST" / "raw"
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


@dataclass(frozen=True)
class Done:
    """What a finished program left: its exit status, negative for a signal, and what it said."""

    status: int
    out: str
    err: str

    def refused(self) -> str:
        """What it said, once it is sure that it ended as a user's mistake should end."""
        assert self.status == 2, (self.status, self.out, self.err)
        assert "Traceback" not in self.err
        assert self.err.strip()
        return self.err


@dataclass(frozen=True)
class Started:
    """A program that runs: its process's number, and the folder of what it says."""

    pid: int
    spoken: Path

    def wait(self) -> Done:
        status = int(_ask({"wait": self.pid}))
        return Done(status, *((self.spoken / name).read_text() for name in ("stdout", "stderr")))


def start(
    program: Path, *argv: object, folder: Path, environ: Mapping[str, str] | None = None
) -> Started:
    spoken = TemporaryDirectory()
    atexit.register(spoken.cleanup)
    for name in ("stdout", "stderr"):
        Path(spoken.name, name).touch()
    request = {
        "start": [str(program), *map(str, argv)], "folder": str(folder),
        "environ": {**NO_NETWORK, **(environ or {})}, "spoken": spoken.name,
    }  # fmt: skip
    return Started(int(_ask(request)), Path(spoken.name))


def run(
    program: Path, *argv: object, folder: Path, environ: Mapping[str, str] | None = None
) -> Done:
    return start(program, *argv, folder=folder, environ=environ).wait()


def _ask(request: dict[str, Any]) -> str:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return server.stdout.readline()


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.robustness.fork_server"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(server.communicate)
    return server


def pefs(folder: Path) -> list[str]:
    """The PEFs below a folder, and what an unfinished write would leave."""
    return sorted(path.name for path in folder.rglob("*") if ".pef" in path.name)
