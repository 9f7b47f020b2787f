"""The LeNet example: every command, and training that was stopped and resumed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from batucada import load
from tests.apps import ROOT, load_program

LENET = ROOT / "examples" / "lenet" / "lenet.py"
PEF = "out/lenet/lenet.pef"
BATCH = ["-b", "50"]

pytestmark = pytest.mark.slow  # each worker compiles two programs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a PEF for training, one for prediction, and the sample of MNIST."""
    made = tmp_path_factory.mktemp("lenet")
    raw = made / "mnist_data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (ROOT / "examples" / "data" / "MNIST" / "raw").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        main(["compile", "--pef-name=lenet", *BATCH])
        main(["compile", "--pef-name=predict", "--inference", *BATCH])
    return made


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def main(argv: list[str]) -> None:
    load_program(LENET).main(argv)


def run(*flags: str) -> None:
    main(["run", "--pef", PEF, *BATCH, *flags])


@pytest.mark.parametrize("flags", [["--pef", PEF], ["--pef", "out/predict/predict.pef"]])
def test_the_device_agrees_with_the_host(flags: list[str], capsys) -> None:
    inference = ["--inference"] if "predict" in flags[1] else []
    main(["test", *flags, *inference, *BATCH])
    said = capsys.readouterr().out
    assert said.count("gradient of") == (0 if inference else 10)
    assert "Test passed" in said


def test_it_is_native_throughout_and_measured(capsys) -> None:
    assert not load(PEF).manifest.host
    main(["measure-performance", "--pef", PEF, *BATCH, "-n", "3"])
    assert "measured over 3 iterations" in capsys.readouterr().out


def test_resumed_training_ends_with_the_same_bits_and_predicts(capsys) -> None:
    run("--num-epochs", "2", "--checkpoint", "whole.pt")
    run("--num-epochs", "1", "--checkpoint", "parts.pt")
    capsys.readouterr()
    run("--num-epochs", "2", "--checkpoint", "parts.pt", "--resume")
    said = capsys.readouterr().out
    assert "Epoch [1/2]" not in said
    trained = re.search(r"Test Accuracy: (\d+\.\d\d) Loss: 0\.\d{4}", said)
    assert trained is not None
    assert float(trained[1]) > 90

    whole, parts = torch.load("whole.pt"), torch.load("parts.pt")
    assert whole["epoch"] == parts["epoch"] == 2
    assert all(torch.equal(parts["model"][name], value) for name, value in whole["model"].items())
    for place, state in whole["optimizer"]["state"].items():
        found = parts["optimizer"]["state"][place]
        assert torch.equal(found["momentum_buffer"], state["momentum_buffer"])

    main(["run", "--inference", "--pef", "out/predict/predict.pef", *BATCH,
          "--checkpoint", "parts.pt", "--predictions", "labels"])  # fmt: skip
    assert f"Predicted 1000 labels into labels, accuracy {trained[1]}" in capsys.readouterr().out
    written = Path("labels").read_bytes()
    assert written[:8] == bytes([0, 0, 8, 1, 0, 0, 3, 232])
    assert len(written) == 8 + 1000
    assert set(written[8:]) == set(range(10))


def test_a_checkpoint_is_plain_pytorch(capsys) -> None:
    program = load_program(LENET)
    model = program.LeNet()
    path = Path("plain.pt")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    program.save(path, model, optimizer, 5)
    assert program.restore(path, program.LeNet(), optimizer) == 5
    with pytest.raises(SystemExit, match=r"no checkpoint none\.pt"):
        run("--checkpoint", "none.pt", "--resume")
