"""`sambaflow.samba.utils.trainer.samba`"""

from typing import Any

from batucada.errors import OptionError


def train(*args: Any, **kwargs: Any) -> Any:
    """Refused: its arguments are not public."""
    raise OptionError("trainer.samba.train is not there: write the loop with samba.session.run")
