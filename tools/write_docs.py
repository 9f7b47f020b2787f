"""Write the pages of docs/ that are printed from tables in the code: options.md and flags.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from batucada.config import options_table
from sambaflow.samba.utils.flags import COMMANDS, FLAGS, Flag

DOCS = Path(__file__).parents[1] / "docs"
OPTIONS_HEAD = """\
# Options

The fields of `batucada.Options`. What a program leaves at its default, an environment variable may
set; where two are named, the first that is set counts. A value that makes no sense is an error
that names the variable. This page is printed from the table in `src/batucada/config.py` by
`make docs`.

"""
FLAGS_HEAD = """\
# Flags of SambaFlow programs

What `parse_app_args` accepts before a program adds flags of its own. This page is printed from the
table in `src/sambaflow/samba/utils/flags.py` by `make docs`.

## Flags that act here

"""
IDLE_HEAD = """
## Flags of the RDU and its compiler

They are accepted, so that command lines need no change, and set their attribute. One that is given
prints one line that says it has no effect here.

"""


def options_page() -> str:
    return OPTIONS_HEAD + options_table()


def flags_page() -> str:
    acting = [flag for flag in FLAGS if flag.effect]
    idle = [flag for flag in FLAGS if not flag.effect]
    return FLAGS_HEAD + _acting_table(acting) + IDLE_HEAD + _idle_table(idle)


def _acting_table(flags: Iterable[Flag]) -> str:
    rows = ["| flag | default | commands | what it does |", "|---|---|---|---|"]
    for flag in flags:
        everywhere = set(flag.commands) == set(COMMANDS)
        commands = "all" if everywhere else ", ".join(flag.commands)
        text = flag.help.replace("<", "&lt;")
        rows.append(f"| {_names(flag)} | {_default(flag)} | {commands} | {text} |")
    return "\n".join(rows) + "\n"


def _idle_table(flags: Iterable[Flag]) -> str:
    rows = ["| flag | attribute | default |", "|---|---|---|"]
    rows += [f"| {_names(flag)} | `{flag.dest}` | {_default(flag)} |" for flag in flags]
    return "\n".join(rows) + "\n"


def _names(flag: Flag) -> str:
    return ", ".join(f"`{name}`" for name in flag.names)


def _default(flag: Flag) -> str:
    return f"`{flag.default!r}`"


def main() -> None:
    (DOCS / "options.md").write_text(options_page())
    (DOCS / "flags.md").write_text(flags_page())


if __name__ == "__main__":
    main()
