"""A program in a process that was forked, so that it need not import torch anew."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable


def exit_status(program: Callable[[], object]) -> int:
    """What Python does with a script, to its exit status; what the process that was forked has
    registered for its own end is left out.
    """
    atexit._clear()
    status: object = None
    try:
        _reported(program)
    except SystemExit as end:
        status = end.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


def _reported(program: Callable[[], object]) -> None:
    try:
        program()
    except SystemExit:
        raise
    except BaseException as error:
        sys.last_value = error
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(1) from None
