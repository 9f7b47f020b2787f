"""Arguments and data files that make no sense: one clear message, status 2, nothing written."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.errors import BatucadaError, OptionError
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args, parse_yaml_to_args
from sambaflow.samba.utils.flags import COMMANDS, FLAGS
from tests.robustness.commands import FFN, LOGREG, SAMPLE, Done, pefs, run

HUGE = 10**12


@pytest.mark.parametrize("program", [FFN, LOGREG], ids=["ffn", "logreg"])
@pytest.mark.parametrize("value", ["0", "-1", "abc", HUGE, 10**30, "1.5", ""])
@pytest.mark.parametrize("flag", ["--batch-size", "--num-epochs", "--num-features"])
def test_counts_that_make_no_sense(program: Path, value: Any, flag: str, tmp_path: Path) -> None:
    error = run(program, "compile", f"{flag}={value}", folder=tmp_path).refused()
    assert flag in error
    assert "whole number" in error or "too large" in error
    assert pefs(tmp_path) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["compile", "--ffn-dim-1=0"], "--ffn-dim-1"),
        (["compile", "--num-classes=-3"], "--num-classes"),
        (["compile", "--lr=-1"], "--lr"),
        (["compile", "--lr=nan"], "--lr"),
        (["compile", "--momentum=inf"], "--momentum"),
        (["compile", "--no-such-flag"], "--no-such-flag"),
        (["compile", "-b"], "expected one argument"),
        (["run"], "-p/--pef"),
        (["run", "--pef", "x.pef", "-ws", "2"], "-ws 2"),
        (["measure-performance", "--pef", "x.pef", "-n", "0"], "at least 1"),
        (["rn"], "invalid choice: 'rn'"),
        ([], "required: command"),
        (["compile", "--pef-name=../up"], "not a file name"),
        (["compile", "--pef-name=.."], "not a file name"),
    ],
)
def test_flags_that_make_no_sense(argv: list[str], said: str, tmp_path: Path) -> None:
    assert said in run(FFN, *argv, folder=tmp_path).refused()
    assert pefs(tmp_path) == []


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    error = run(FFN, "compile", "-b", 2_000_000_000, folder=tmp_path).refused()
    assert "not enough memory at" in error
    assert "sn_boilerplate_model.py" in error
    assert "6272000000000 bytes" in error


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BATUCADA_TARGET", "x86-64-v9", "x86-64-v4"),
        ("BATUCADA_CHECKED", "perhaps", "1 or 0"),
        ("BATUCADA_STOP", "nowhere", "capture"),
        ("OMP_NUM_THREADS", "0", "1 to 1024"),
    ],
)
def test_variables_that_make_no_sense(name: str, value: str, said: str, tmp_path: Path) -> None:
    done = run(LOGREG, "compile", folder=tmp_path, environ={name: value})
    assert said in done.refused()
    assert value in done.err
    assert pefs(tmp_path) == []


@pytest.mark.parametrize("option", [{"lr": -1.0}, {"momentum": -0.5}, {"nesterov": True}])
def test_optimizer_options_that_make_no_sense(option: dict[str, Any]) -> None:
    parameters = [samba.zeros(3).torch().requires_grad_()]
    with pytest.raises(OptionError, match=r"samba\.optim\.SGD: "):
        samba.optim.SGD(parameters, **option)


# --- data ---
@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert run(LOGREG, "compile", "--pef-name=app", "-b", 50, folder=folder).status == 0
    return folder


def trained(compiled: Path, data: Path | str, *flags: object) -> Done:
    argv = ["run", "--pef", "out/app/app.pef", "-b", 50, "--data-folder", data, *flags]
    return run(LOGREG, *argv, folder=compiled)


def idx(shape: tuple[int, ...], value: int = 1) -> bytes:
    """An IDX file of bytes (the format of MNIST's files)."""
    count = 1
    for extent in shape:
        count *= extent
    head = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    return head + bytes([value]) * count


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
Damage = Callable[[bytes], bytes]
DAMAGE: dict[str, tuple[str, Damage]] = {
    "truncated images": (IMAGES, lambda data: data[:5000]),
    "truncated header": (IMAGES, lambda data: data[:3]),
    "empty labels": (LABELS, lambda data: b""),
    "text": (LABELS, lambda data: b"these are no labels"),
    "fewer labels": (LABELS, lambda data: idx((20,))),
    "no images": (IMAGES, lambda data: idx((0, 28, 28))),
    "small images": (IMAGES, lambda data: idx((500, 20, 20))),
    "flat images": (IMAGES, lambda data: idx((500, 784))),
    "a large label": (LABELS, lambda data: data[:-1] + bytes([77])),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_data(kind: str, compiled: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    name, damage = DAMAGE[kind]
    for packed in SAMPLE.glob("*.gz"):
        data = gzip.decompress(packed.read_bytes())
        (raw / packed.stem).write_bytes(damage(data) if packed.stem == name else data)
    error = trained(compiled, tmp_path).refused()
    assert str(raw) in error
    assert "damaged" in error


def test_a_data_folder_without_some_files(compiled: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / IMAGES).write_bytes(b"")
    error = trained(compiled, tmp_path).refused()
    assert "does not hold MNIST" in error
    assert str(raw) in error


def test_damaged_packed_data(compiled: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in SAMPLE.glob("*.gz"):
        (raw / packed.name).write_bytes(packed.read_bytes()[:100])
    error = trained(compiled, tmp_path).refused()
    assert ".gz is damaged" in error


def test_a_data_folder_that_is_a_file(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert "file" in trained(compiled, tmp_path / "file").refused()


def test_no_data_folder_trains_on_the_sample(compiled: Path, tmp_path: Path) -> None:
    done = trained(compiled, tmp_path / "none")
    assert done.status == 0
    assert "using the sample" in done.err


# --- fuzz ---
WORDS = st.one_of(
    st.sampled_from([name for flag in FLAGS for name in flag.names]),
    st.sampled_from(COMMANDS),
    st.sampled_from(["-b=3", "--", "-", "--pef=x", "0", "-1", "1e3", "nan", "=", "--help", "@x"]),
    st.text(max_size=6),
    st.integers().map(str),
)


@given(st.one_of(st.just([]), st.sampled_from(COMMANDS).map(lambda c: [c])), st.lists(WORDS))
@settings(max_examples=150)
def test_any_words_parse_or_exit(command: list[str], words: list[str]) -> None:
    status = 0
    with open("/dev/null", "w") as nowhere, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            parse_app_args([*command, *(w for w in words if w != "--data-parallel")])
        except SystemExit as end:
            status = end.code
    assert status in (0, 2)


YAML = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8")),
    st.text(alphabet="-:{}[]ab12 \n'\"#&*!|>%@`,?"),
    st.sampled_from(["batch-size: 4", "compile: {o0: true}", "compile: 3", "3: 4", "? [a]\n: b"]),
    st.sampled_from(["a: 2001-99-99", "[" * 2000, "a: &a [*a]", "compile: []", "a: !!int x"]),
)


@given(text=YAML)
@settings(max_examples=300)
def test_any_yaml_is_taken_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    args = argparse.Namespace(command="compile", batch_size=1)
    said = str(path)
    try:
        parse_yaml_to_args(str(path), args)
    except BatucadaError as error:
        said = str(error)
    assert str(path) in said
    assert vars(args) == {"command": "compile", "batch_size": 1}


def test_yaml_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(OptionError, match=r"a\.yaml"):
        parse_yaml_to_args(str(tmp_path / "a.yaml"), argparse.Namespace())
    with pytest.raises(OptionError, match=r"none\.yaml"):
        parse_yaml_to_args(str(tmp_path / "none.yaml"), argparse.Namespace())
