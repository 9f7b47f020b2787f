"""Which rank is lost?  A failed collective says that somebody does not answer, not who.

Every rank sends rank 0 a datagram each second, and is told who has fallen silent.  A process that
was killed or stopped, or whose host is cut off, sends none; one that waits for it does.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

from torch.distributed.distributed_c10d import Store

from batucada.errors import ReplicaError
from batucada.runtime.launch import Launch
from batucada.runtime.rendezvous import ranks_text

_BEAT_SECONDS = 1.0
_SILENT_SECONDS = 3.5  # three beats, for a datagram may be lost and a busy machine late
LONGEST_DOUBT_SECONDS = _SILENT_SECONDS + 2 * _BEAT_SECONDS  # until it is told who is silent
_MOST_NAMED = 100
_PORT = "batucada/pulse"  # key of the store


class Pulse:
    """Says that this rank lives, and knows which of the others do not."""

    def __init__(self, launch: Launch, store: Store) -> None:
        self._launch = launch
        self._silent: tuple[int, ...] = ()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        others = range(1, launch.world_size) if launch.rank == 0 else (0,)
        self._heard = dict.fromkeys(others, time.monotonic())
        self._homes: dict[int, tuple[str, int]] = {}
        key = f"{_PORT}/{launch.job}"
        if launch.rank == 0:
            self._socket.bind(("", 0))
            store.set(key, str(self._socket.getsockname()[1]))
            threading.Thread(target=self._listen, daemon=True).start()
            return
        host = getattr(store, "host", launch.address)
        self._socket.connect((host, int(store.get(key))))
        threading.Thread(target=self._beat, daemon=True).start()

    # ---- rank 0

    def _listen(self) -> None:
        while True:
            with suppress(OSError, struct.error):  # an answer that did not arrive, a stranger
                data, sender = self._socket.recvfrom(64)
                (rank,) = struct.unpack("!I", data)
                self._heard[rank], self._homes[rank] = time.monotonic(), sender
                self._tell(sender)

    def _tell(self, home: tuple[str, int]) -> None:
        silent = self._fallen_silent()[:_MOST_NAMED]
        self._socket.sendto(struct.pack(f"!{len(silent)}I", *silent), home)

    def _fallen_silent(self) -> tuple[int, ...]:
        limit = time.monotonic() - _SILENT_SECONDS
        return tuple(rank for rank, heard in sorted(self._heard.items()) if heard < limit)

    # ---- the others

    def _beat(self) -> None:
        while True:
            with suppress(OSError):  # rank 0 is gone
                self._socket.send(struct.pack("!I", self._launch.rank))
            next_beat = time.monotonic() + _BEAT_SECONDS
            while (left := next_beat - time.monotonic()) > 0:
                self._hear(left)

    def _hear(self, seconds: float) -> None:
        """An answer of rank 0, or its last word, which comes unasked."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(4 * _MOST_NAMED)
        except ConnectionRefusedError:
            time.sleep(seconds)
            return
        except OSError:  # no answer in time
            return
        self._silent = struct.unpack(f"!{len(data) // 4}I", data)
        self._heard[0] = time.monotonic()

    # ---- both

    def silent(self) -> tuple[int, ...]:
        """The ranks of which nothing is heard any more; it waits until that can be told."""
        give_up = time.monotonic() + LONGEST_DOUBT_SECONDS
        while time.monotonic() < give_up:
            silent = self._silent or self._fallen_silent()
            if silent:
                break
            time.sleep(0.1)
        for home in tuple(self._homes.values()):  # rank 0 leaves: its last word
            with suppress(OSError):
                self._tell(home)
        return silent

    def error(self, doing: str, error: RuntimeError) -> ReplicaError:
        """What to say of a collective operation that failed."""
        silent = self.silent()
        who = "every rank is there"
        if silent:
            who = f"{ranks_text(silent)} {'do' if len(silent) > 1 else 'does'} not answer any more"
        return ReplicaError(f"{self._launch}: {doing} failed: {who} ({reason(error)})")


def reason(error: Exception) -> str:
    """Gloo's own words, without the place in its source and its advice."""
    line = str(error).splitlines()[0]
    return (line.partition("] ")[2] or line).partition(". ")[0]
