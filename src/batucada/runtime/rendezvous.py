"""Where the processes of a job meet: a store of keys and values that rank 0 serves.

Two jobs on one machine never meet: each store holds the name of its job, a process that finds
another name looks further, and a port that is taken is passed over or is an error.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from torch.distributed import (
    DistError,
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from batucada.errors import LaunchError, ReplicaError
from batucada.runtime.launch import Launch

_JOB, _EVERYONE = "batucada/job", "batucada/everyone"  # keys of the store
_CANDIDATES = 16  # ports of a job, of which rank 0 takes the first that is free
_FIRST_PORT, _LAST_PORT = 15000, 31000  # below those that Linux gives away by itself
_TAKEN = "failed to listen"  # what TCPStore says of a port
_PROBE_SECONDS, _POLL_SECONDS = 2.0, 0.05


def meet(launch: Launch, seconds: float) -> TCPStore:
    """The store, when rank 0 serves it.

    ReplicaError, within `seconds`, when a port is taken or rank 0 is missing.
    """
    deadline = time.monotonic() + seconds
    if launch.exchanges and not launch.port:
        store = _through_exchange(launch, deadline)
    else:
        ports = _ports(launch)
        serves = launch.rank == 0 and not _agent_serves()
        store = _served(launch, ports) if serves else _found(launch, ports, deadline)
    store.set_timeout(timedelta(seconds=seconds))
    return store


def _agent_serves() -> bool:
    """torchrun keeps a store for all that it starts."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _ports(launch: Launch) -> Sequence[int]:
    """The one that was given, else a few that follow from the name of the job."""
    if not launch.address or not (launch.port or launch.job):
        missing = "MASTER_ADDR" if launch.job else "MASTER_ADDR and MASTER_PORT"
        raise LaunchError(f"{launch}: the launcher does not say where rank 0 is; set {missing}")
    if launch.port:
        return [launch.port]
    blocks = (_LAST_PORT - _FIRST_PORT) // _CANDIDATES
    first = _FIRST_PORT + zlib.crc32(launch.job.encode()) % blocks * _CANDIDATES
    return range(first, first + _CANDIDATES)


def _served(launch: Launch, ports: Sequence[int]) -> TCPStore:
    """Rank 0's, on the first port that is free."""
    for port in ports:
        try:
            store = TCPStore(launch.address, port, is_master=True, wait_for_workers=False)
        except DistError as error:
            if _TAKEN in str(error):
                continue
            reason = str(error).splitlines()[0]
            raise ReplicaError(f"{launch}: cannot serve at {launch.address}: {reason}") from None
        store.set(_JOB, launch.job)
        return store
    raise ReplicaError(
        f"{launch}: port {_range(ports)} is taken by another program;"
        " set MASTER_PORT to a free one, the same in all processes"
    )


def _found(launch: Launch, ports: Sequence[int], deadline: float) -> TCPStore:
    """The store of this job at one of the ports, as soon as it is there."""
    other = ""
    while time.monotonic() < deadline:
        for port in ports:
            store = _store_at(launch.address, port)
            if store is None:
                continue
            if launch.rank == 0:  # torchrun serves it
                store.set(_JOB, launch.job)
            name = _job_of(store)
            if name == launch.job:
                return store
            other = name or other
        time.sleep(_POLL_SECONDS)
    hint = f"; there is the job {other!r}" if other else ""
    raise ReplicaError(
        f"{launch}: rank 0 does not answer at {launch.address}, port {_range(ports)}{hint};"
        " if it is elsewhere, set MASTER_ADDR and MASTER_PORT"
    )


def _store_at(address: str, port: int) -> TCPStore | None:
    """A store that answers at once, or nothing; TCPStore by itself tries again and again."""
    with suppress(OSError, DistError):
        socket.create_connection((address, port), _PROBE_SECONDS).close()
        return TCPStore(
            address, port, is_master=False, wait_for_workers=False,
            timeout=timedelta(seconds=_PROBE_SECONDS),
        )  # fmt: skip
    return None


def _job_of(store: TCPStore) -> str:
    """'' while rank 0 has not said it."""
    with suppress(DistError):
        return store.get(_JOB).decode() if store.check([_JOB]) else ""
    return ""


def _range(ports: Sequence[int]) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"


def _through_exchange(launch: Launch, deadline: float) -> TCPStore:
    """Rank 0 listens on a free port and puts it where the launcher lets all read it."""
    with _Pmi(int(os.environ["PMI_FD"])) as pmi:
        named = replace(launch, job=pmi.job)
        store = _served(named, [0]) if launch.rank == 0 else None
        if store is not None:
            pmi.put("batucada", f"{launch.address}:{store.port}")
        pmi.barrier()
        address, _, port = pmi.get("batucada").rpartition(":")
    return store or _found(replace(named, address=address), [int(port)], deadline)


class _Pmi:
    """The PMI-1 protocol that MPICH's process manager speaks on a descriptor: a line each way.

    It ends with the exchange; a program that calls MPI itself must set MASTER_ADDR and MASTER_PORT.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._lines = self._socket.makefile("rw")

    def __enter__(self) -> _Pmi:
        self._ask("init pmi_version=1 pmi_subversion=1")
        self.job = self._ask("get_my_kvsname")["kvsname"]
        return self

    def __exit__(self, *_: object) -> None:
        self._ask("finalize")
        self._socket.close()

    def put(self, key: str, value: str) -> None:
        self._ask(f"put kvsname={self.job} key={key} value={value}")

    def get(self, key: str) -> str:
        return self._ask(f"get kvsname={self.job} key={key}")["value"]

    def barrier(self) -> None:
        self._ask("barrier_in")

    def _ask(self, what: str) -> dict[str, str]:
        self._lines.write(f"cmd={what}\n")
        self._lines.flush()
        answer = self._lines.readline()
        found = dict(word.split("=", 1) for word in answer.split() if "=" in word)
        if found.get("rc", "0") != "0" or not found:
            raise LaunchError(f"mpirun's process manager refuses {what.split()[0]}: {answer!r}")
        return found


def roll_call(store: TCPStore, launch: Launch, seconds: float, gone: Callable[[], str]) -> None:
    """Waits for all ranks, each of which may be there once.

    ReplicaError when one is missing after `seconds`, or is `gone` again, and says which.
    """
    deadline = time.monotonic() + seconds
    there = f"{_EVERYONE}/{launch.job}/is there"
    if store.add(_joined(launch.job, launch.rank), 1) > 1:
        raise ReplicaError(
            f"{launch}: another process has this rank; two jobs meet at {store.host}:"
            f"{store.port}: give each a MASTER_PORT of its own"
        )
    if store.add(f"{_EVERYONE}/{launch.job}", 1) == launch.world_size:
        store.set(there, "")
    while not store.check([there]):
        if time.monotonic() > deadline:
            raise ReplicaError(f"{launch}: {_missing(store, launch)} did not join in time")
        if lost := gone():
            missing = _missing(store, launch)
            raise ReplicaError(f"{launch}: {lost}, and {missing} has not joined yet")
        time.sleep(_POLL_SECONDS)


def _joined(job: str, rank: int) -> str:
    return f"batucada/joined/{job}/{rank}"


def _missing(store: TCPStore, launch: Launch) -> str:
    ranks = range(launch.world_size)
    return ranks_text([r for r in ranks if not store.check([_joined(launch.job, r)])])


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 2`"""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def interface_towards(address: str, port: int) -> str:
    """The network interface by which a host is reached, '' where that cannot be told."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # sends nothing
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            if _address_of(probe, name) == own:
                return name
    return ""


def _address_of(probe: socket.socket, interface: str) -> str:
    """Its IPv4 address, '' without one."""
    request = struct.pack("256s", interface.encode())
    siocgifaddr = 0x8915
    with suppress(OSError):
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), siocgifaddr, request)[20:24])
    return ""
