"""SambaFlow's Python interface on Batucada: `from sambaflow import samba`.

The names, flags and semantics are those that SambaFlow programs import; the compiler and the
runtime behind them are `batucada`.  This package translates and holds no algorithm.
"""

import sys
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

    if not issubclass(kind, BatucadaError):
        return _default_hook(kind, error, trace)
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr, flush=True)
    # An excepthook cannot set the exit status in any other way: the interpreter leaves with 1.
    raise SystemExit(2)


_default_hook = sys.excepthook
sys.excepthook = _report
