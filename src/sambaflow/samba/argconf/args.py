"""Records for `samba.session.setup`."""

from __future__ import annotations

import argparse
from typing import Any

from sambaflow.samba.utils.flags import FLAGS


class CommonArgs(argparse.Namespace):
    """Every framework flag by its name, at its default unless given; others are kept as given."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**{flag.dest: flag.default for flag in FLAGS} | values)


class CompileArgs(CommonArgs):
    """For `samba.session.compile`."""


class RunArgs(CommonArgs):
    """For `trace_graph` and `samba.session.run`."""
