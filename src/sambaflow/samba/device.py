"""The current session, for tensors and optimizers, which it imports and which cannot import it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sambaflow.samba.session import SambaSession

_session: SambaSession | None = None


def set_current(session: SambaSession) -> None:
    global _session
    _session = session


def current() -> SambaSession:
    assert _session is not None, "sambaflow.samba makes the session when it is imported"
    return _session
