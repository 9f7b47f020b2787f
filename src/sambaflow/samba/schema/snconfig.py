"""`SNConfig`: the schema of `SambaConfig`: every parameter of the command line, as it is."""

from typing import Any


class SNConfig(dict[str, Any]):
    """Settings by name."""
