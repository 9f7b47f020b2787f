"""The processes of this job, joined by `torch.distributed` (Gloo)."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch import distributed
from torch.distributed import (
    DistError,
    HashStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
)

from batucada.config import Options
from batucada.errors import ReplicaError
from batucada.runtime.launch import Launch, detect
from batucada.runtime.lost import reason
from batucada.runtime.pulse import LONGEST_DOUBT_SECONDS, Pulse
from batucada.runtime.rendezvous import interface_towards, meet, roll_call

_GLOO_LOOP = "gloo_tcp_loop"  # the thread that polls all connections
_ALONE = Launch("started alone", rank=0, world_size=1, local_rank=0, job="")


@dataclass(frozen=True, slots=True)
class Group:
    """What this process knows of its job: its own place, the store, how long a collective operation
    waits, and who of the others lives.
    """

    launch: Launch
    store: Store
    timeout_seconds: float
    pulse: Pulse | None


_joined: Group | None = None


def join(options: Options | None = None) -> Launch:
    """Join the processes that a launcher started with this one, and initialise `torch.distributed`.

    A process that was started alone is a job of one.  Where the program has initialised
    `torch.distributed` already, that is what counts.  Afterwards nothing waits for another process
    longer than `Options.timeout`.  ReplicaError names the rank that is missing or cannot join.
    """
    global _joined
    if _joined is not None:
        return _joined.launch
    launch = detect() or _ALONE
    if distributed.is_initialized():
        return launch
    seconds = (options or Options()).with_environment().timeout
    doubt_seconds = min(LONGEST_DOUBT_SECONDS, seconds / 2)
    store, pulse = _met(launch, seconds, doubt_seconds)
    seconds -= doubt_seconds
    _connect(launch, store, seconds, pulse)
    _joined = Group(launch, store, seconds, pulse)
    return launch


def _met(launch: Launch, seconds: float, doubt_seconds: float) -> tuple[Store, Pulse | None]:
    """When everyone is there."""
    if launch.world_size == 1:
        atexit.register(_leave, None)
        return HashStore(), None
    start = time.monotonic()
    store = meet(launch, seconds)
    _choose_interface(launch.address if launch.rank == 0 else store.host, store.port)
    try:
        pulse = Pulse(launch, store, doubt_seconds)
        atexit.register(_leave, pulse)
        roll_call(store, launch, seconds - (time.monotonic() - start), pulse.gone)
    except DistError:
        raise ReplicaError(f"{launch}: rank 0, which serves the store, is lost") from None
    return store, pulse


def _connect(launch: Launch, store: Store, seconds: float, pulse: Pulse | None) -> None:
    hook = sys.excepthook  # PyTorch's own swallows what a program's hook prints
    try:
        distributed.init_process_group(
            "gloo", store=store, rank=launch.rank, world_size=launch.world_size,
            timeout=timedelta(seconds=seconds),
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise _error(f"{launch}", pulse, "connecting to the others", error) from None
    finally:
        sys.excepthook = hook


def rank() -> int:
    """Of this process; a process that runs alone is rank 0 of 1."""
    return distributed.get_rank() if _grouped() else 0


def world_size() -> int:
    return distributed.get_world_size() if _grouped() else 1


def patience_seconds() -> float:
    """How long a collective operation waits for another rank."""
    return _joined.timeout_seconds if _joined is not None else Options().timeout


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def collective(doing: str) -> Iterator[None]:
    """Surrounds operations of `torch.distributed`: ReplicaError names the ranks that are lost."""
    pulse = _joined.pulse if _joined is not None else None
    if pulse is not None:
        pulse.begin()
    try:
        yield
    except RuntimeError as error:
        raise _error(f"rank {rank()} of {world_size()}", pulse, doing, error) from None


def _error(who: str, pulse: Pulse | None, doing: str, error: Exception) -> ReplicaError:
    if pulse is not None:
        return pulse.error(doing, error)
    return ReplicaError(f"{who}: {doing} failed: {reason(error)}")


def keep_gloo_from_preempting() -> None:
    """Gloo's polling thread gets a core when one is free, or in turn.

    While another thread holds a connection's lock, it does not sleep but polls again.  Where it has
    preempted that very thread, it does so until its time slice ends, longer than many a step.
    """
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # a thread that has ended, a system that does not allow it
            if name.read_text().strip() == _GLOO_LOOP:
                os.sched_setscheduler(int(name.parent.name), os.SCHED_BATCH, os.sched_param(0))


def _choose_interface(address: str, port: int) -> None:
    """Gloo's own choice is the address of this host's name, which may be a loopback's."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    name = os.environ.get("FI_VERBS_IFACE") or interface_towards(address, port)
    if name:
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _leave(pulse: Pulse | None) -> None:
    if pulse is not None:
        pulse.leave()
    with suppress(RuntimeError, ValueError, AssertionError):
        distributed.destroy_process_group()
