"""Names that programs import and that are not here: a program that does not use one runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


def absent(name: str, reason: str) -> Callable[..., NoReturn]:
    """Stands for the function or class `name`: calling it raises OptionError with the reason."""

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        # Imported here: `import sambaflow` for its version alone should not load batucada.
        from batucada.errors import OptionError

        raise OptionError(f"{name} is not there: {reason}")

    return refuse
