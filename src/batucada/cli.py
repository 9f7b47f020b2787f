"""The `batucada` command: look into a PEF, or at a model before it is one.  A user's mistake is one
line on stderr and status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from batucada.errors import BatucadaError
from batucada.pef.manifest import manifest_text
from batucada.pef.read import Pef, read_pef
from batucada.pef.show import level_text, summary

ASSEMBLY = "asm"
MODULE = "module.ll"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's); returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "examine":
            return _examine(arguments)
        print(_show(arguments) if arguments.command == "show" else _profile(arguments))
        sys.stdout.flush()
    except BatucadaError as error:
        print(f"batucada: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, a pager for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batucada", description="Look into compiled programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print what a PEF holds")
    show.add_argument("file", help="the PEF")
    what = show.add_mutually_exclusive_group()
    what.add_argument(
        "--ir",
        metavar="LEVEL",
        help=f"print one level of the program (capture, ..., kernels, module, {ASSEMBLY})",
    )
    what.add_argument("--json", action="store_true", help="print the manifest as JSON")
    profile = commands.add_parser("profile", help="time every stage of a whole step")
    profile.add_argument("file", help="the PEF")
    profile.add_argument("--steps", type=int, default=50, help="steps to take the fastest of")
    examine = commands.add_parser(
        "examine",
        help="say what of a model will be native, before it is compiled",
        description="Say what of a model will be native, what PyTorch will run, and what cannot be"
        " captured, each with the line of the model.  The status is 2 when it cannot be compiled.",
    )
    examine.add_argument(
        "model",
        metavar="FILE.py:FUNCTION",
        help="the function returns (model, inputs), or a model that has `example_inputs`: a tensor,"
        " a tuple or list of them, or a dictionary of keyword arguments",
    )
    examine.add_argument("--inference", action="store_true", help="the forward pass alone")
    return parser


def _examine(arguments: argparse.Namespace) -> int:
    from batucada.examine import examined  # PyTorch is imported only where a model is traced

    report, compilable = examined(arguments.model, training=not arguments.inference)
    print(report)
    return 0 if compilable else 2


def _profile(arguments: argparse.Namespace) -> str:
    from batucada.program import load  # PyTorch is imported only where a program runs
    from batucada.runtime.profile import profile_text

    return profile_text(load(arguments.file).profile(steps=arguments.steps))


def _show(arguments: argparse.Namespace) -> str:
    pef = read_pef(arguments.file)
    if arguments.json:
        return manifest_text(pef.manifest).rstrip("\n")
    if arguments.ir == ASSEMBLY:
        return _assembly(pef)
    if arguments.ir is not None:
        return level_text(pef, arguments.ir).rstrip("\n")
    return summary(pef)


def _assembly(pef: Pef) -> str:
    from batucada.codegen.objects import assembly  # LLVM takes 40 MB: only who asks pays for it
    from batucada.codegen.target import target_of

    return assembly(pef.text(MODULE), target_of(pef.manifest.target.level)).rstrip("\n")
