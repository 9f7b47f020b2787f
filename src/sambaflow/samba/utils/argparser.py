"""The command line: `program.py {compile,run,test,measure-performance,…} [flags]`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from batucada.errors import OptionError
from sambaflow.logging import no_effect, samba_logger
from sambaflow.samba.utils import distributed
from sambaflow.samba.utils.flags import COMMANDS, FLAGS, ON_DEVICE, Command, Flag

AddArguments = Callable[[argparse.ArgumentParser], Any]

# The last arguments parsed: `compile` and `trace_graph` take from them what they are not given.
_settings: dict[str, Any] = {}

_HELP: dict[Command, str] = {
    "compile": "make a PEF",
    "run": "train or infer with a PEF",
    "test": "compare the PEF's results with the model on the host",
    "measure-performance": "time a PEF",
    "measure-sections": "time the sections of a PEF",
    "measure-cpu": "time the model on the host",
}


def parse_app_args(
    argv: Sequence[str] | None = None,
    dev_mode: bool = False,
    common_parser_fn: AddArguments | None = None,
    run_parser_fn: AddArguments | None = None,
    test_parser_fn: AddArguments | None = None,
) -> argparse.Namespace:
    """Parse `argv`, by default the process's.

    `common_parser_fn` adds arguments to every command, `run_parser_fn` to run, `test_parser_fn` to
    test; a program that declares a framework flag again has its way.  A mistake exits with 2.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    experimental = dev_mode or "--debug" in argv
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(
        dest="command", required=True, help="different modes of operation"
    )
    own = {"run": run_parser_fn, "test": test_parser_fn}
    for command in COMMANDS:
        sub = commands.add_parser(
            command,
            help=_HELP[command],
            # The flags are too many for an error to repeat; --help lists them.
            usage=f"{parser.prog} {command} [-h] [flags]",
            allow_abbrev=False,
            conflict_handler="resolve",
        )
        _add_flags(sub, command, experimental)
        for add in (common_parser_fn, own.get(command)):
            if add is not None:
                add(sub)
    args = parser.parse_args(argv)
    args.dev_mode = dev_mode
    _complete(args)
    remember(args)
    _act(args)
    return args


class _NoEffect(argparse.Action):
    """Stores the value, and says that it changes nothing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)
        no_effect(str(option_string))


def _add_flags(parser: argparse.ArgumentParser, command: Command, experimental: bool) -> None:
    parser.set_defaults(**{flag.dest: flag.default for flag in FLAGS})
    for flag in FLAGS:
        if command in flag.commands:
            parser.add_argument(*flag.names, **_declaration(flag, experimental))
    if command != "compile" and command != "measure-cpu":
        _require_pef(parser)


def _declaration(flag: Flag, experimental: bool) -> dict[str, Any]:
    shown = flag.help or ("experimental" if experimental else argparse.SUPPRESS)
    fields: dict[str, Any] = {"dest": flag.dest, "default": flag.default, "help": shown}
    if flag.type is not None:
        fields |= {"type": flag.type, "choices": flag.choices, "nargs": flag.nargs}
        fields |= {"const": flag.const} if flag.nargs == "?" else {}
    if not flag.effect:
        fields |= {"action": _NoEffect} | ({"nargs": 0, "const": True} if not flag.type else {})
    elif flag.type is None:
        fields["action"] = "store_true"
    return fields


def _require_pef(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if action.dest == "pef":
            action.required = True


def _complete(args: argparse.Namespace) -> None:
    """Attributes that other flags decide; a program that re-declares a flag may have lost some."""
    for flag in FLAGS:
        if not hasattr(args, flag.dest):
            setattr(args, flag.dest, flag.default)
    levels = [level for level in ("o0", "o1", "o3") if getattr(args, level)]
    args.optim_level = levels[0] if levels else args.optim_level


def _act(args: argparse.Namespace) -> None:
    level = "debug" if args.debug else args.log_level
    samba_logger.setLevel(getattr(logging, str(level).upper()))
    if args.data_parallel and args.command in ON_DEVICE:
        distributed.initialize()


def remember(args: Any) -> None:
    """Make `args`, a namespace, record or mapping, the current settings."""
    global _settings
    _settings = dict(args) if isinstance(args, Mapping) else dict(vars(args))


def current_settings() -> dict[str, Any]:
    """The last parsed arguments by name; empty when none were parsed."""
    return dict(_settings)


def parse_yaml_to_args(yaml_path: str, args: argparse.Namespace) -> argparse.Namespace:
    """`args` with a YAML file's values, by flag name with `-` or `_`, over the command line's.

    A mapping under the command's name holds values for that command alone.
    """
    content = _mapping(yaml_path, _yaml(yaml_path))
    merged = argparse.Namespace(**vars(args))
    own = _mapping(yaml_path, content.get(getattr(args, "command", "")))
    values = {key: value for key, value in content.items() if key not in COMMANDS} | own
    for key, value in values.items():
        setattr(merged, str(key).lstrip("-").replace("-", "_"), value)
    remember(merged)
    return merged


def _yaml(path: str) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from None
    # ValueError: no text, or a date that does not exist; RecursionError: too deep
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not valid YAML: {error}") from None


def _mapping(path: str, value: Any) -> dict[Any, Any]:
    """`value`, where nothing counts as an empty mapping; OptionError for anything else."""
    if value is not None and not isinstance(value, dict):
        raise OptionError(f"{path}: expected a mapping of flags to values, not {value!r:.40}")
    return value or {}


class SambaConfig:
    """The settings of `args`, after `schema`, a mapping type such as SNConfig."""

    def __init__(self, args: Any, schema: Callable[..., Mapping[str, Any]] = dict) -> None:
        self._schema = schema
        self._values = dict(args) if isinstance(args, Mapping) else dict(vars(args))

    def get_all_params(self) -> Mapping[str, Any]:
        return self._schema(self._values)
