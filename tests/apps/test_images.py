"""The U-Net and ResNet-18 examples: training, and evaluation by an inference PEF."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from batucada import load
from tests.apps import ROOT, load_program

pytestmark = pytest.mark.slow  # each compiles two programs of dozens of layers


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def every_command(program: ModuleType, shared: list[str], run: list[str], capsys: Any) -> list[str]:
    """What training and evaluation said."""
    program.main(["compile", "--pef-name=train", *shared])
    program.main(["compile", "--pef-name=evaluate", "--inference", *shared])
    pef, inference = "out/train/train.pef", "out/evaluate/evaluate.pef"
    assert not load(pef).manifest.host
    program.main(["test", "--pef", pef, *shared])
    program.main(["test", "--pef", inference, "--inference", *shared])
    program.main(["measure-performance", "--pef", pef, "-n", "2", *shared])
    said = capsys.readouterr().out
    assert said.count("Test passed") == 2
    assert "measured over 2 iterations" in said
    program.main(["run", "--pef", pef, *shared, *run])
    trained = capsys.readouterr().out
    program.main(["run", "--pef", inference, "--inference", *shared, *run])
    return [trained, capsys.readouterr().out]


def test_unet(capsys: pytest.CaptureFixture[str]) -> None:
    program = load_program(ROOT / "examples" / "unet" / "unet.py")
    said = every_command(program, ["-b", "4", "--features", "4"], ["--steps", "60"], capsys)
    host, device = (float(re.findall(r"Test IoU: (0\.\d+)", text)[0]) for text in said)
    assert host == pytest.approx(device, abs=2e-4)
    assert device > 0.4
    losses = [float(loss) for loss in re.findall(r"Loss: (\d\.\d+)", said[0])]
    assert losses[-1] < losses[0]


def test_resnet18(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "mnist_data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (ROOT / "examples" / "data" / "MNIST" / "raw").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    program = load_program(ROOT / "examples" / "resnet18" / "resnet18.py")
    _, evaluated = every_command(program, ["-b", "8"], ["--images", "64", "--lr", "0.01"], capsys)

    saved = torch.load("resnet18.pt")
    model = program.Classifier()
    model.load_state_dict(saved["model"])
    assert saved["model"]["net.bn1.num_batches_tracked"] == 8
    assert len(saved["optimizer"]["state"]) == len(list(model.parameters()))
    args = program.argparse.Namespace(data_folder="mnist_data", images=64, batch_size=8)
    model.eval()
    with torch.no_grad():
        losses = [model(*batch)[0].item() for batch in program.loader(args, train=False)]
    loss = float(re.findall(r"Loss: (\d+\.\d{4})", evaluated)[0])
    assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-3)
