"""Two hosts: network namespaces that a veth pair joins."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

NETWORK = "10.77.0"


def missing() -> str:
    """Why there can be no two hosts here; empty when there can."""
    if shutil.which("ip") is None:
        return "no ip: apt install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"batucada-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not to be had: {made.stderr.strip()}"
    _ip("netns", "del", probe)
    return ""


@dataclass(frozen=True)
class Host:
    """A network namespace, and its address on the only cable that it has."""

    name: str
    address: str
    cable: str

    def cut(self) -> None:
        """Take the cable out."""
        _ip("-n", self.name, "link", "set", self.cable, "down")

    def mend(self) -> None:
        _ip("-n", self.name, "link", "set", self.cable, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    with ExitStack() as stack:
        hosts = []
        for number, letter in enumerate("ab", start=1):
            name = f"batucada-{os.getpid()}-{letter}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            hosts.append(Host(name, f"{NETWORK}.{number}", f"cable-{letter}"))
        one, other = hosts
        _ip(
            *("link", "add", one.cable, "netns", one.name, "type", "veth"),
            *("peer", "name", other.cable, "netns", other.name),
        )
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.cable)
            for link in (host.cable, "lo"):
                _ip("-n", host.name, "link", "set", link, "up")
        yield one, other


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
