"""The command line: what it takes, what it refuses, what it says of flags that do nothing here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from batucada.errors import OptionError
from sambaflow.samba.utils.argparser import (
    SambaConfig,
    current_settings,
    parse_app_args,
    parse_yaml_to_args,
)
from sambaflow.samba.utils.flags import COMMANDS, FLAGS
from sambaflow.samba.utils.values import fraction_or_more, positive

PEF = ["--pef", "x.pef"]


def required(command: str) -> list[str]:
    return [] if command in ("compile", "measure-cpu") else PEF


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_an_attribute_of_every_command(command: str) -> None:
    args = parse_app_args([command, *required(command)])
    assert args.command == command
    for flag in FLAGS:
        if flag.dest != "pef":
            assert getattr(args, flag.dest) == flag.default, flag.names


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[-1])
def test_every_flag_parses_and_speaks_up_if_it_does_nothing(
    flag: object, capsys: pytest.CaptureFixture[str]
) -> None:
    from sambaflow.logging import samba_logger

    samba_logger._shown.clear()
    command = flag.commands[0]  # type: ignore[attr-defined]
    samples = {str: "text", int: "3", float: "0.5", positive: "3", fraction_or_more: "0.5"}
    value = [samples[flag.type]] if flag.type else []  # type: ignore[attr-defined]
    value = [flag.choices[0]] if flag.choices else value  # type: ignore[attr-defined]
    name = flag.names[-1]  # type: ignore[attr-defined]
    args = parse_app_args([command, name, *value, *(required(command) if name != "--pef" else [])])
    assert getattr(args, flag.dest) not in (None, [], False)  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert (f"{name} has no effect here" in said) != flag.effect  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["run"], "required: -p/--pef"),
        (["test"], "required: -p/--pef"),
        (["measure-performance"], "required: -p/--pef"),
        ([], "required: command"),
        (["run", *PEF, "-ws", "8"], "unrecognized arguments: -ws 8"),
        (["compile", "--no-such-flag"], "unrecognized arguments"),
        (["compile", "--batch", "4"], "unrecognized arguments"),
        (["compile", "-b", "0"], "not a whole number of at least 1"),
        (["compile", "-b", "many"], "not a whole number of at least 1"),
        (["measure-performance", *PEF, "-n", "-3"], "at least 1"),
        (["measure-performance", *PEF, "--min-duration", "nan"], "not a number of at least 0"),
        (["compile", "--mapping", "both"], "invalid choice"),
        (["dance"], "invalid choice"),
    ],
)
def test_mistakes_exit_with_2(
    argv: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_app_args(argv)
    assert exit_info.value.code == 2
    assert error in capsys.readouterr().err


def test_the_program_has_its_way_with_framework_flags() -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-b", "--batch-size", type=int, default=32)
        parser.add_argument("-n", "--num-iterations", type=int, default=7)
        parser.add_argument("--data-parallel", default="maybe")
        parser.add_argument("-lr", type=float, default=0.1)
        parser.add_argument("-mbsize", type=int, default=16)
        parser.add_argument("-bs", type=int, default=1)
        for name in ("--h", "--w", "--n", "--c", "--k"):
            parser.add_argument(name, type=int, default=3)

    args = parse_app_args(
        ["run", *PEF, "-lr", "0.5", "-mbsize=8", "--n", "9"], common_parser_fn=add
    )
    assert (args.batch_size, args.num_iterations, args.data_parallel) == (32, 7, "maybe")
    assert (args.lr, args.mbsize, args.bs, args.n, args.h) == (0.5, 8, 1, 9, 3)
    assert parse_app_args(["compile", "-b=4"], common_parser_fn=add).batch_size == 4


def test_arguments_of_one_command() -> None:
    def add_run(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data-folder", default="mnist_data")

    args = parse_app_args(["run", *PEF], run_parser_fn=add_run)
    assert args.data_folder == "mnist_data"
    assert not hasattr(parse_app_args(["test", *PEF], run_parser_fn=add_run), "data_folder")


@pytest.mark.parametrize("name", ["-ws", "--ws", "--world-size"])
def test_world_size_on_compile_and_measure(name: str) -> None:
    assert parse_app_args(["compile", name, "2"]).world_size == 2
    assert parse_app_args(["measure-performance", *PEF, name, "2"]).world_size == 2


def test_experimental_flags_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for argv in (["compile", "--help"], ["compile", "--debug", "--help"]):
        with pytest.raises(SystemExit):
            parse_app_args(argv)
        shown.append("--mac-v1" in capsys.readouterr().out)
    assert shown == [False, True]


def test_optimisation_level_follows_the_switch() -> None:
    assert parse_app_args(["compile"]).optim_level == "o3"
    assert parse_app_args(["compile", "--o1"]).optim_level == "o1"


def test_the_last_arguments_are_remembered() -> None:
    parse_app_args(["compile", "--pef-name", "kept"])
    assert current_settings()["pef_name"] == "kept"


def test_yaml_over_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("batch-size: 8\ncompile:\n  pef_name: mine\nrun:\n  pef_name: other\n")
    args = parse_yaml_to_args(str(path), parse_app_args(["compile", "-b", "2"]))
    assert (args.batch_size, args.pef_name) == (8, "mine")
    assert SambaConfig(args).get_all_params()["pef_name"] == "mine"


@pytest.mark.parametrize(
    ("text", "error"), [("a: [1", "not valid YAML"), ("- 1", "expected a mapping")]
)
def test_bad_yaml_is_named(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=error):
        parse_yaml_to_args(str(path), parse_app_args(["compile"]))
    with pytest.raises(OptionError, match="cannot read"):
        parse_yaml_to_args(str(tmp_path / "none.yaml"), parse_app_args(["compile"]))
