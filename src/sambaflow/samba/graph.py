"""`samba.graph`: several graphs in one PEF, which Batucada's format does not hold."""

from typing import Any

from batucada.errors import OptionError


class SambaGraph:
    """Refuses to be made: a PEF holds one graph."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OptionError(
            f"samba.graph.{type(self).__name__} is not there: a PEF holds one graph; compile each "
            "model to a PEF of its own with samba.session.compile"
        )


class FwdGraph(SambaGraph):
    """As `SambaGraph`."""
