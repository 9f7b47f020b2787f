"""Every knob of Batucada, in one table.  `docs/options.md` is printed from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from batucada.errors import OptionError

Reduce = Literal["gloo", "shared"]
TargetLevel = Literal["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"]
MAX_THREADS = 1024


@dataclass(frozen=True)
class Options:
    """How to compile and run.  What is left at its default, `with_environment` may fill in."""

    dump_dir: Path | None = None
    stop_after: str | None = None
    checked: bool = False
    oracle: bool = False
    target: TargetLevel | None = None
    debug: int = 0
    threads: int | None = None
    cache: str | None = None
    timeout: float = 1800.0
    data_parallel: bool = False
    bucket_mb: float = 4.0
    reduce: Reduce = "gloo"

    def __post_init__(self) -> None:
        if self.target is not None and self.target not in get_args(TargetLevel):
            raise OptionError(_expected("target", self.target, " or ".join(get_args(TargetLevel))))
        if self.reduce not in get_args(Reduce):
            raise OptionError(_expected("reduce", self.reduce, " or ".join(get_args(Reduce))))
        if not 0 <= self.debug <= 3:
            raise OptionError(_expected("debug", self.debug, "0, 1, 2 or 3"))
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise OptionError(_expected("threads", self.threads, f"1 to {MAX_THREADS}"))
        if not self.bucket_mb > 0:
            raise OptionError(_expected("bucket_mb", self.bucket_mb, "megabytes, more than 0"))
        if not self.timeout > 0:
            raise OptionError(_expected("timeout", self.timeout, "seconds, more than 0"))

    def with_environment(self, environ: Mapping[str, str] | None = None) -> Options:
        """These options, with the environment's value where one is left at its default."""
        environ = os.environ if environ is None else environ
        found = {knob.option: knob.read(environ) for knob in KNOBS if knob.variables}
        default = Options()
        return replace(
            self,
            **{
                name: value
                for name, value in found.items()
                if value is not None and getattr(self, name) == getattr(default, name)
            },
        )

    def thread_count(self) -> int:
        """Number of threads to run on: `threads` if given, else the cores open to this process."""
        return self.threads or available_cores()


def _expected(what: str, found: object, wanted: str) -> str:
    return f"{what} is {found!r}; expected {wanted}"


def _parse_bool(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True}
    values |= {"0": False, "false": False, "no": False, "off": False}
    return values[text.lower()]


def _parse_threads(text: str) -> int:
    """OMP_NUM_THREADS may be a list, one number a nesting level; the outermost counts."""
    count = int(text.split(",")[0])
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(text)
    return count


def _parse_positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _parse_debug(text: str) -> int:
    if text not in ("0", "1", "2", "3"):
        raise ValueError(text)
    return int(text)


def _one_of(choices: Any) -> Callable[[str], str]:
    """The parser of a Literal."""

    def parse(text: str) -> str:
        if text not in get_args(choices):
            raise ValueError(text)
        return text

    return parse


@dataclass(frozen=True)
class Knob:
    """A line of the table: the field of `Options`, the variables that set it (the first that is
    set wins), what they may hold, and what it does."""

    option: str
    variables: tuple[str, ...]
    wanted: str
    parse: Callable[[str], Any]
    help: str

    def read(self, environ: Mapping[str, str]) -> Any:
        """The value in the environment, None when unset or empty; OptionError when senseless."""
        for variable in self.variables:
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                return self.parse(text)
            except (ValueError, KeyError):
                raise OptionError(_expected(variable, text, self.wanted)) from None
        return None


KNOBS = (
    Knob(
        "dump_dir", ("BATUCADA_DUMP",), "a folder", Path,
        "write what each step of the compiler made to a file of its own in this folder",
    ),
    Knob(
        "stop_after", ("BATUCADA_STOP",), "the name of a compiler step", str,
        "stop the compiler after this step; nothing is written but the dump",
    ),
    Knob(
        "checked", ("BATUCADA_CHECKED",), "1 or 0", _parse_bool,
        "kernels test each address that is not proved right (slow; finds compiler defects)",
    ),
    Knob(
        "oracle", ("BATUCADA_ORACLE",), "1 or 0", _parse_bool,
        "evaluate the graph before and after each step with numpy and compare (slow)",
    ),
    Knob(
        "target", ("BATUCADA_TARGET",), " or ".join(get_args(TargetLevel)), _one_of(TargetLevel),
        "compile for this processor level instead of the one of this machine",
    ),
    Knob(
        "debug", ("BATUCADA_DEBUG",), "0, 1, 2 or 3", _parse_debug,
        "print on stderr: 1 the compiler's steps with times, 2 also the stages, 3 also the kernels",
    ),
    Knob(
        "threads", ("SN_NUM_THREADS", "OMP_NUM_THREADS"), f"1 to {MAX_THREADS}", _parse_threads,
        "threads to run on; by default as many as cores are open to the process",
    ),
    Knob(
        "cache", ("BATUCADA_CACHE",), "a folder, or off", str,
        "where compiled programs are kept for the next compilation of the same model; by default"
        " `$XDG_CACHE_HOME/batucada`",
    ),
    Knob(
        "timeout", ("CCL_TIMEOUT",), "seconds, more than 0", _parse_positive,
        "how long a replica waits for the others before it ends with an error",
    ),
    Knob(
        "data_parallel", (), "true or false", _parse_bool,
        "compile a program that several replicas can train together (`--data-parallel`)",
    ),
    Knob(
        "bucket_mb", ("BATUCADA_BUCKET_MB",), "megabytes, more than 0", _parse_positive,
        "gradients that replicas reduce in one go: a bucket is closed when it has this size",
    ),
    Knob(
        "reduce", ("BATUCADA_REDUCE",), " or ".join(get_args(Reduce)), _one_of(Reduce),
        "how replicas add up gradients: by Gloo, or in memory that all share where they are on one"
        " machine",
    ),
)  # fmt: skip


def available_cores() -> int:
    """Cores that this process may use: its affinity, and a container's CPU quota (at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota_cores()))


def _quota_cores(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores of the cgroup v2 quota, a line "<microseconds or max> <period>"."""
    try:
        quota, period = path.read_text().split()
        return MAX_THREADS if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return MAX_THREADS


def options_table() -> str:
    """The knobs as a Markdown table."""
    rows = ["| option | variable | values | what it does |", "|---|---|---|---|"]
    for knob in KNOBS:
        default = getattr(Options(), knob.option)
        variables = ", then ".join(f"`{variable}`" for variable in knob.variables) or "–"
        rows.append(f"| `{knob.option}` = {default} | {variables} | {knob.wanted} | {knob.help} |")
    return "\n".join(rows) + "\n"
