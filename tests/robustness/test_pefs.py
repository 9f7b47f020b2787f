"""A PEF that is missing, damaged, or of something else: one clear message, status 2."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import batucada as bt
from batucada.errors import PefError, PefMismatchError
from batucada.pef import manifest as manifest_module
from batucada.pef import read_pef, write_pef
from sambaflow import samba
from sambaflow.samba import utils
from tests.robustness.commands import FFN, LOGREG, SAMPLE, run
from tests.robustness.nets import Classifier, batch, named, sgd, traced


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEFs of logreg, of training and of inference, and MNIST."""
    folder = tmp_path_factory.mktemp("pefs")
    raw = folder / "mnist_data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in SAMPLE.glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    for name, flags in (("train", []), ("forward", ["--inference"])):
        done = run(LOGREG, "compile", "--pef-name", name, "-b", 50, *flags, folder=folder)
        assert done.status == 0, done.err
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    return (folder / "out/train/train.pef").read_bytes()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "the file is empty"),
    "truncated": (lambda data: data[: len(data) // 2], "its end is missing"),
    "one byte short": (lambda data: data[:-1], "damaged"),
    "one byte more": (lambda data: data + b"x", "damaged"),
    "text": (lambda data: b"hello", "no zip file"),
    "one bit": (lambda data: data[:999] + bytes([data[999] ^ 1]) + data[1000:], "damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("command", ["run", "test", "measure-performance"])
def test_damage(kind: str, command: str, folder: Path, whole: bytes) -> None:
    path = folder / f"{kind.replace(' ', '-')}.pef"
    damage, said = DAMAGE[kind]
    path.write_bytes(damage(whole))
    error = run(LOGREG, command, "--pef", path, "-b", 50, folder=folder).refused()
    assert said in error
    assert str(path) in error


def test_no_flipped_byte_goes_unnoticed(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flipped.pef"
    chosen = random.Random(7).sample(range(len(whole)), 400)
    for place in (0, 1, len(whole) - 1, *chosen):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(PefError, match=r"flipped\.pef"):
            bt.load(path)


def test_no_file_a_folder_and_another_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "other.pef", "w") as archive:
        archive.writestr("readme.txt", "no PEF")
    for path, said in (
        ("none.pef", "no such PEF"),
        ("out", "not a file"),
        ("other.pef", "not a PEF"),
    ):
        assert said in run(LOGREG, "test", "--pef", path, "-b", 50, folder=folder).refused()


def test_a_newer_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pef = read_pef(folder / "out/train/train.pef")
    newer = manifest_module.FORMAT_VERSION + 1
    write_pef(folder / "newer.pef", replace(pef.manifest, format_version=newer), {})
    error = run(LOGREG, "test", "--pef", "newer.pef", "-b", 50, folder=folder).refused()
    assert f"newer format version {newer}" in error
    assert "compile the model again" in error


TRAIN, FORWARD = "out/train/train.pef", "out/forward/forward.pef"


@pytest.mark.parametrize(
    ("program", "flags", "said"),
    [
        (LOGREG, ["--pef", TRAIN, "-b", 5], "compiled as f32[50,784], the model has f32[5,784]"),
        (LOGREG, ["--pef", TRAIN, "-b", 50, "--num-classes", 9], "the model has f32[9,784]"),
        (LOGREG, ["--pef", TRAIN, "-b", 50, "--bias"], "lin_layer__bias"),
        (LOGREG, ["--pef", FORWARD, "-b", 50], "compiled for inference"),
        (LOGREG, ["--pef", FORWARD, "-b", 5, "--inference"], "f32[50,784], the model has f32[5"),
        (FFN, ["--pef", TRAIN, "-b", 50], "the model has not"),
    ],
)  # fmt: skip
def test_a_pef_of_something_else(program: Path, flags: list, said: str, folder: Path) -> None:
    error = run(program, "run", *flags, folder=folder).refused()
    assert said in error


def test_a_training_pef_evaluates(folder: Path) -> None:
    done = run(LOGREG, "run", "--pef", TRAIN, "-b", 50, "--inference", folder=folder)
    forward = run(LOGREG, "run", "--pef", FORWARD, "-b", 50, "--inference", folder=folder)
    assert (done.status, done.out.splitlines()[-1]) == (0, forward.out.splitlines()[-1])
    assert "Test Accuracy" in done.out


OTHER_OPTIMIZERS = {
    "class": (lambda m: samba.optim.AdamW(m.parameters()), r"\['sgd'\], given \['adamw'\]"),
    "option": (lambda m: sgd(m, maximize=True), "maximize was compiled as False, given True"),
    "clipping": (lambda m: sgd(m, max_grad_norm=1.0), "max_grad_norm was compiled as None"),
    "parameters": (lambda m: samba.optim.SGD(m.first.parameters()), "other parameters"),
    "groups": (
        lambda m: samba.optim.SGD(
            [{"params": m.first.parameters()}, {"params": m.last.parameters()}]
        ),
        "in other groups",
    ),
    "count": (
        lambda m: [samba.optim.SGD(m.first.parameters()), samba.optim.SGD(m.last.parameters())],
        r"\['sgd'\], given \['sgd', 'sgd'\]",
    ),
}  # fmt: skip


def test_other_optimizers_than_compiled() -> None:
    model, _ = traced()
    program = samba.session.program
    pef = str(program.pef.path)
    for make, said in OTHER_OPTIMIZERS.values():
        with pytest.raises(PefMismatchError, match=said):
            utils.trace_graph(model, named(*batch()), make(model), pef=pef)
    assert samba.session.program is program, "the traced program stays"
    samba.session.run(named(*batch()))


def test_other_dtypes_or_arithmetic_than_compiled() -> None:
    traced()
    pef = str(samba.session.program.pef.path)
    x, label = batch()
    model = Classifier()
    with pytest.raises(PefMismatchError, match=r"f32\[16,12\], the model has f64\[16,12\]"):
        utils.trace_graph(model, named(x.double(), label), sgd(model), pef=pef)

    class Steeper(Classifier):
        def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple:
            loss, logits = super().forward(x, label)
            return loss * 2, logits

    Steeper.__name__ = "Classifier"
    model = Steeper()
    with pytest.raises(
        PefMismatchError, match=r"computes something else(.|\n)*compiled:(.|\n)*given"
    ):
        utils.trace_graph(model, named(x, label), sgd(model), pef=pef)
