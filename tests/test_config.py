"""Knobs: what the program sets wins, then the environment; senseless values name the variable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from batucada import config
from batucada.config import KNOBS, Options
from batucada.errors import OptionError


def test_environment_fills_what_is_left_at_its_default() -> None:
    environ = {"BATUCADA_DUMP": "/tmp/dump", "BATUCADA_CHECKED": "yes", "BATUCADA_DEBUG": "2"}
    options = Options(debug=1).with_environment(environ)
    assert options == Options(dump_dir=Path("/tmp/dump"), checked=True, debug=1)


def test_first_thread_variable_wins() -> None:
    both = {"SN_NUM_THREADS": "3", "OMP_NUM_THREADS": "5,2"}
    assert Options().with_environment(both).thread_count() == 3
    assert Options().with_environment({"OMP_NUM_THREADS": "5,2"}).thread_count() == 5
    assert Options().with_environment({"SN_NUM_THREADS": " "}).threads is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BATUCADA_CHECKED", "maybe"),
        ("BATUCADA_DEBUG", "9"),
        ("BATUCADA_TARGET", "z80"),
        ("SN_NUM_THREADS", "0"),
        ("OMP_NUM_THREADS", "many"),
    ],
)
def test_senseless_value_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"{variable} is '{value}'; expected "):
        Options().with_environment({variable: value})


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"debug": 7}, {"target": "z80"}])
def test_senseless_argument(wrong: dict) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(wrong))} is "):
        Options(**wrong)


@pytest.mark.parametrize(
    ("line", "cores"),
    [("max 100000", config.MAX_THREADS), ("150000 100000", 2), ("10000 100000", 1), ("?", 1024)],
)
def test_quota(tmp_path: Path, line: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(line + "\n")
    assert config._quota_cores(tmp_path / "cpu.max") == cores


def test_available_cores_is_positive() -> None:
    assert 1 <= config.available_cores() <= config.MAX_THREADS


def test_every_option_is_in_the_table() -> None:
    assert [knob.option for knob in KNOBS] == [f.name for f in dataclasses.fields(Options)]
