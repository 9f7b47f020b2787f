"""What is said of a rank that is lost: that it ended and why, that it is silent, or only late."""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import walk_tb

from batucada.runtime.rendezvous import ranks_text

SILENT_SECONDS = 3.5  # three beats, for a datagram may be lost and a busy machine late
_MOST_NAMED = 20
_LONGEST_WORD = 400
_SOURCE = Path(__file__).parents[2]
_PACKAGES = tuple(
    f"{folder}{os.sep}"
    for folder in (
        sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"),
        _SOURCE / "batucada", _SOURCE / "sambaflow",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself: how many collective operations it has begun, how long ago the
    last was, its last word where it ends, its host, and how many processes that has killed for
    lack of memory meanwhile.
    """

    rank: int
    begun: int
    idle_s: float
    word: str
    host: str
    starved: int


@dataclass(frozen=True)
class Report:
    """What is known of the ranks that others wait for; each with the seconds that it is `silent`,
    or `late` in beginning what the asker has begun.  `unheard_s` is the longest time for which
    nothing is heard of one of them, `never` those of which nothing was ever heard.
    """

    host: str = ""
    word: str = ""
    silent: Sequence[tuple[int, float]] = ()
    late: Sequence[tuple[int, float]] = ()
    never: Sequence[int] = ()
    starved: bool = False
    unheard_s: float = 0.0

    def sure(self, silent_seconds: float = SILENT_SECONDS) -> str:
        """The cause, '' where there is none that time will not change."""
        ranks = [rank for rank, seconds in self.silent if seconds > silent_seconds]
        if self.word or not ranks:
            return self.word
        text = f"{ranks_text(ranks)} {'do' if len(ranks) > 1 else 'does'} not answer any more"
        killed = "; its host has killed a process for lack of memory"
        return text + killed * self.starved

    def likely(self) -> str:
        """The cause, when ranks have had the time to say that they live."""
        if self.never:
            return f"of {ranks_text(self.never)} nothing was ever heard by UDP"
        if not self.late:
            return "every rank is there"
        ranks, seconds = [rank for rank, _ in self.late], min(s for _, s in self.late)
        verb, it = ("are", "them") if len(ranks) > 1 else ("is", "it")
        return f"{ranks_text(ranks)} {verb} alive and late: nothing from {it} for {seconds:.0f} s"


def report_of(
    seen: Mapping[int, tuple[Beat, float]], asker: Beat, world_size: int, word: str
) -> Report:
    """`seen` are the last beats that came, each with its age in seconds."""
    silent = {r: age for r, (_, age) in sorted(seen.items()) if age > SILENT_SECONDS}
    late = [
        (rank, round(beat.idle_s + age, 1))
        for rank, (beat, age) in sorted(seen.items())
        if beat.begun < asker.begun and rank not in silent
    ]
    hosts = {seen[rank][0].host for rank in silent}
    return Report(
        host=seen[0][0].host,
        word=word,
        silent=[(rank, round(age, 1)) for rank, age in silent.items()][:_MOST_NAMED],
        late=late[:_MOST_NAMED],
        never=[rank for rank in range(world_size) if rank not in seen][:_MOST_NAMED],
        starved=any(beat.starved for beat, _ in seen.values() if beat.host in hosts),
        unheard_s=max(age for _, age in seen.values()),
    )


def encoded(message: Beat | Report) -> bytes:
    return json.dumps(asdict(message)).encode()


def last_word(rank: int, error: BaseException | None) -> str:
    """`rank 1 ended: ValueError: no number (train.py:12)`"""
    if error is None:
        return f"rank {rank} has ended, without an error of Python's"
    lines = str(error).splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"rank {rank} ended: {said[:_LONGEST_WORD]}{_place(error)}"


def _place(error: BaseException) -> str:
    """The innermost line that is the program's own."""
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(file, line) for file, line in lines if not file.startswith((*_PACKAGES, "<"))]
    return f" ({own[-1][0]}:{own[-1][1]})" if own else ""


def reason(error: Exception) -> str:
    """Gloo's own words, without the place in its source and its advice."""
    line = str(error).splitlines()[0]
    return (line.partition("] ")[2] or line).partition(". ")[0]


def processes_starved() -> int:
    """How many this host has killed for lack of memory since it started; 0 where Linux does not
    say.
    """
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
