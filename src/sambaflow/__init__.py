"""SambaFlow's Python interface on Batucada: `from sambaflow import samba`.

The names, flags and semantics are those that SambaFlow programs import; the compiler and the
runtime behind them are `batucada`.  This package translates and holds no algorithm.
"""

import os
import sys
from traceback import walk_tb
from types import TracebackType

__version__ = "1.24.1"
"""The SambaFlow release whose interface this package follows."""


def is_demo() -> bool:
    """Whether this is a demonstration build of the compiler: never."""
    return False


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show a mistake of the user's as its message alone; show anything else with its traceback."""
    # Imported here: `import sambaflow` for its version alone should not load torch.
    from batucada.errors import BatucadaError

    if issubclass(kind, BatucadaError):
        message, status = f"error: {error}", 2
    elif issubclass(kind, MemoryError) or _ALLOCATION in str(error):
        message, status = f"error: not enough memory{_place(trace)}: {error}", 2
    elif issubclass(kind, KeyboardInterrupt):
        message, status = "interrupted", 130  # as a shell counts: 128 + SIGINT
    else:
        return _default_hook(kind, error, trace)
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    # An excepthook cannot set the exit status in any other way: the interpreter leaves with 1.
    raise SystemExit(status)


# What torch's RuntimeError says where Python would raise MemoryError.
_ALLOCATION = "DefaultCPUAllocator: can't allocate memory"


def _place(trace: TracebackType | None) -> str:
    """` at file:line` of the program, below which are packages only."""
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(trace)]
    ours = os.path.dirname(os.path.abspath(__file__))
    own = [
        f" at {name}:{line}"
        for name, line in lines
        if "site-packages" not in name and not name.startswith(ours)
    ]
    return own[-1] if own else ""


_default_hook = sys.excepthook
sys.excepthook = _report
