"""`samba_logger`: the messages of the face, in the vendor's form."""

import logging
import sys
from collections import Counter


class SambaLogger(logging.Logger):
    """A logger whose methods take `log_limit`: how often one and the same message is shown."""

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.WARNING)
        self._shown: Counter[str] = Counter()

    def _log(self, level, msg, args, *more, log_limit: int | None = None, **kwargs) -> None:  # type: ignore[override]
        self._shown[str(msg)] += 1
        if log_limit is None or self._shown[str(msg)] <= log_limit:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            super()._log(level, msg, args, *more, **kwargs)


class _StderrHandler(logging.StreamHandler):
    """Writes to what `sys.stderr` is at the moment of writing."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Form(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"[{record.levelname.lower()}] [samba]: {record.getMessage()}"


def _make_logger() -> SambaLogger:
    logger = SambaLogger("sambaflow.samba")
    handler = _StderrHandler()
    handler.setFormatter(_Form())
    logger.addHandler(handler)
    return logger


samba_logger = _make_logger()


def no_effect(what: str, why: str = "Batucada compiles for the processor of this machine") -> None:
    """Say once that `what`, which means something on an RDU, changes nothing here."""
    samba_logger.warning(f"{what} has no effect here: {why}.", log_limit=1)  # type: ignore[call-arg]
