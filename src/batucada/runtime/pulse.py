"""Which rank is lost?  A failed collective says that somebody does not answer, not who.

Every rank sends rank 0 a datagram each second, and is told what is known of the others.  A process
that was killed or stopped, or whose host is cut off, sends none; one that waits for it does; and
one that ends sends its last word before.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

from torch.distributed.distributed_c10d import Store

from batucada.errors import ReplicaError
from batucada.runtime import lost
from batucada.runtime.launch import Launch
from batucada.runtime.lost import SILENT_SECONDS, Beat, Report, encoded

_BEAT_SECONDS, _ASK_SECONDS = 1.0, 0.1
_GONE_SECONDS = 10.0  # of silence, after which nobody waits for a rank to join
LONGEST_DOUBT_SECONDS = SILENT_SECONDS + 2 * _BEAT_SECONDS  # until it is told who is silent
_LARGEST_MESSAGE = 4096
_PORT = "batucada/pulse"  # key of the store


class Pulse:
    """Says that this rank lives, and knows which of the others do not.

    `doubt_seconds` is how long it takes at most to find out why a collective failed.
    """

    def __init__(self, launch: Launch, store: Store, doubt_seconds: float) -> None:
        self._launch = launch
        self._doubt_seconds = doubt_seconds
        self._begun, self._began = 0, time.monotonic()
        self._word = ""  # of the first rank that ended, or what was found of one that is lost
        self._host, self._starved = socket.gethostname(), lost.processes_starved()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._seen: dict[int, tuple[Beat, float]] = {}  # of rank 0: the last beats, and when
        self._homes: dict[int, tuple[str, int]] = {}
        self._report: Report | None = None  # of the others: what rank 0 said last, and when
        self._reported = time.monotonic()
        key = f"{_PORT}/{launch.job}"
        if launch.rank == 0:
            self._socket.bind(("", 0))
            store.set(key, str(self._socket.getsockname()[1]))
            threading.Thread(target=self._listen, daemon=True).start()
            return
        host = getattr(store, "host", launch.address)
        self._socket.connect((host, int(store.get(key))))
        self._say()  # at once, so that a rank that dies now is known
        threading.Thread(target=self._beat, daemon=True).start()

    def _own(self) -> Beat:
        starved = lost.processes_starved() - self._starved
        idle_s = round(time.monotonic() - self._began, 1)
        return Beat(self._launch.rank, self._begun, idle_s, self._word, self._host, starved)

    # ---- rank 0

    def _listen(self) -> None:
        while True:
            with suppress(OSError, ValueError, TypeError):  # an answer that got lost, a stranger
                data, sender = self._socket.recvfrom(_LARGEST_MESSAGE)
                beat = Beat(**json.loads(data))
                self._seen[beat.rank], self._homes[beat.rank] = (beat, time.monotonic()), sender
                if beat.word and not self._word:
                    self._word = beat.word
                    self._tell_all()
                self._tell(beat)

    def _tell(self, beat: Beat) -> None:
        self._socket.sendto(encoded(self._report_for(beat)), self._homes[beat.rank])

    def _tell_all(self) -> None:
        for beat, _ in tuple(self._seen.values()):
            with suppress(OSError):
                self._tell(beat)

    def _report_for(self, asker: Beat) -> Report:
        now = time.monotonic()
        seen = {rank: (beat, now - heard) for rank, (beat, heard) in tuple(self._seen.items())}
        seen[0] = self._own(), 0.0
        return lost.report_of(seen, asker, self._launch.world_size, self._word)

    # ---- the others

    def _beat(self) -> None:
        while True:
            self._say()
            next_beat = time.monotonic() + _BEAT_SECONDS
            while (left := next_beat - time.monotonic()) > 0:
                self._hear(left)

    def _say(self) -> None:
        with suppress(OSError):  # rank 0 is gone
            self._socket.send(encoded(self._own()))

    def _hear(self, seconds: float) -> None:
        """An answer of rank 0, or what it says unasked."""
        self._socket.settimeout(seconds)
        try:
            report = Report(**json.loads(self._socket.recv(_LARGEST_MESSAGE)))
        except ConnectionRefusedError:
            time.sleep(seconds)
            return
        except (OSError, ValueError, TypeError):  # no answer in time, a stranger
            return
        self._word = self._word or report.word
        self._report, self._reported = report, time.monotonic()

    # ---- both

    def _known(self) -> Report:
        if self._launch.rank == 0:
            return self._report_for(self._own())
        age, report, own = time.monotonic() - self._reported, self._report, self._own()
        if report is None:
            return Report(word=self._word, never=(0,))
        if age <= SILENT_SECONDS:
            return replace(report, word=self._word, unheard_s=report.unheard_s + age)
        starved = own.starved > 0 and own.host == report.host
        return Report(word=self._word, silent=((0, age),), starved=starved, unheard_s=age)

    def begin(self) -> None:
        """Another collective operation begins."""
        self._begun, self._began = self._begun + 1, time.monotonic()

    def gone(self) -> str:
        """Which of the ranks that have joined is lost, and why; '' while none is."""
        cause = self._known().sure(_GONE_SECONDS)
        if cause:
            self._spread(cause)
        return cause

    def error(self, doing: str, error: Exception) -> ReplicaError:
        """What to say of a collective operation that failed."""
        return ReplicaError(
            f"{self._launch}: {doing} failed: {self._cause()} ({lost.reason(error)})"
        )

    def _cause(self) -> str:
        """Waits until it can be told."""
        failed = time.monotonic()
        while time.monotonic() < failed + self._doubt_seconds:
            if self._launch.rank:
                self._say()
            time.sleep(_ASK_SECONDS)
            report = self._known()
            if report.sure():
                break
            alive = time.monotonic() - failed > report.unheard_s + _ASK_SECONDS
            if alive and not report.never:
                break
        report = self._known()
        cause = report.sure() or report.likely()
        if report.sure() or report.late:
            self._spread(cause)
        return cause

    def _spread(self, word: str) -> None:
        """Who hears it says the same, also when this rank is gone."""
        self._word = self._word or word
        if self._launch.rank:
            self._say()
        self._tell_all()

    def leave(self) -> None:
        """This process ends, by the exception that Python has printed, if any."""
        error = getattr(sys, "last_value", None)
        if isinstance(error, RuntimeError) and "/gloo/" in str(error):
            self._cause()  # a collective of the program's own failed
        self._spread(lost.last_word(self._launch.rank, error))
