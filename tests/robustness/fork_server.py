"""Starts programs without paying for torch each time: it has imported everything and run nothing.

One JSON object a line on stdin: {"start": [argv], "folder", "environ", "spoken"} answers with the
process's number, {"wait": number} with its exit status, negative for a signal.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from functools import partial
from typing import Any

from benchmarks.forked import exit_status

import sambaflow.samba.utils.common  # noqa: F401 - imported for the programs to come

STREAMS = ("stdout", "stderr")


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        number = os.fork()
        if number == 0:
            os._exit(exit_status(partial(_run, request)))
        print(number, flush=True)


def _run(request: dict[str, Any]) -> None:
    # What a shell starts in the background ignores SIGINT, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.update(request["environ"])
    for number, name in enumerate(STREAMS, start=1):
        os.dup2(os.open(f"{request['spoken']}/{name}", os.O_WRONLY | os.O_CREAT), number)
    sys.argv = request["start"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
