"""The example programs: every command, training and inference, and what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from batucada import load
from batucada.errors import PefError, PefMismatchError
from tests.apps import ROOT, load_program

FFN = ROOT / "examples" / "ffn_mnist" / "sn_boilerplate_main.py"
LOGREG = ROOT / "examples" / "logreg" / "logreg.py"
PEF = "out/app/app.pef"
SAMPLE = ROOT / "examples" / "data"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_folder(tmp_path: Path) -> str:
    """The sample as a data folder: its gzip files are unpacked there, and nothing is downloaded."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (SAMPLE / "MNIST" / "raw").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    return str(tmp_path / "data")


@pytest.fixture(params=[FFN, LOGREG], ids=["ffn", "logreg"])
def main(request: pytest.FixtureRequest):
    return load_program(request.param).main


@pytest.mark.parametrize("batch_size", ["1", "7", "16"])
def test_every_address_is_within_its_buffer(
    main, batch_size: str, data_folder: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checked build of each example, every command of it."""
    monkeypatch.setenv("BATUCADA_CHECKED", "1")
    main(["compile", "--pef-name=app", "-b", batch_size])
    assert load(PEF).manifest.report["checked"]
    main(["test", "--pef", PEF, "-b", batch_size])
    main(["run", "--pef", PEF, "-b", batch_size, "--data-folder", data_folder])
    main(["measure-performance", "--pef", PEF, "-b", batch_size, "-n", "5"])
    assert "measured over 5 iterations" in capsys.readouterr().out


def test_compile_test_run_measure(main, data_folder: str, capsys) -> None:
    main(["compile", "--pef-name=app", "-b", "16"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "[Info][SAMBA]# Placing log files in out/app/app.samba.log"
    assert printed[-1] == f"[info   ] PEF file {Path.cwd() / PEF} created"
    assert " s" in Path("out/app/app.samba.log").read_text()

    main(["test", "--pef", PEF, "-b", "16"])
    printed = capsys.readouterr().out
    assert f"sn_create_session: PEF File: {PEF}" in printed
    assert "gradient of" in printed
    assert "Test passed" in printed

    main(["run", "--pef", PEF, "-b", "16", "--lr", "0.03", "--data-folder", data_folder])
    accuracy = re.search(r"Test Accuracy: (\d+\.\d\d) Loss: 0\.\d{4}", capsys.readouterr().out)
    assert accuracy is not None
    assert float(accuracy[1]) > 80

    main(["measure-performance", "--pef", PEF, "-b", "16", "-n", "20", "--json", "time.json"])
    printed = capsys.readouterr().out
    assert "Measuring peformance" in printed
    assert "initial run starts.\ninitial run completes.\n" in printed
    assert re.search(
        r"e2e_latency: \S+ seconds, throughput: \S+ samples/s, measured over 20 iterations\.",
        printed,
    )
    assert re.search(r"total duration: \S+ s", printed)
    record = json.loads(Path("time.json").read_text())
    assert record["throughput"] == pytest.approx(16 * 20 / record["seconds"])


def test_inference(main, data_folder: str, capsys) -> None:
    main(["compile", "--inference", "--pef-name=app", "-b", "8"])
    for command in (["test"], ["run", "--data-folder", data_folder], ["measure-performance"]):
        main([*command, "--inference", "--pef", PEF, "-b", "8"])
    printed = capsys.readouterr().out
    assert "gradient" not in printed
    assert re.search(r"Test Accuracy: \d+\.\d\d Loss: \d", printed)


def test_a_trained_checkpoint_evaluates_the_same_on_the_device(data_folder: str, capsys) -> None:
    main = load_program(FFN).main
    shared = ["--batch-size", "50", "--data-folder", data_folder, "--checkpoint", "weights.pt"]
    main(["compile", "-b", "50", "--pef-name=app"])
    main(["run", "--pef", PEF, "--lr", "0.05", *shared])
    trained = re.findall(r"Test Accuracy: .*", capsys.readouterr().out)
    main(["compile", "-b", "50", "--inference", "--pef-name=forward"])
    main(["run", "--inference", "--pef", "out/forward/forward.pef", *shared])
    assert re.findall(r"Test Accuracy: .*", capsys.readouterr().out) == trained
    assert torch.load("weights.pt").keys() == {
        "ffn.gemm1.weight",
        "ffn.gemm2.weight",
        "logreg.lin_layer.weight",
    }


def test_a_pef_of_another_batch_size_or_model_is_refused() -> None:
    main = load_program(FFN).main
    main(["compile", "-b", "4", "--pef-name=app"])
    for flags in (["-b", "5"], ["-b", "4", "--ffn-dim-1", "16"]):
        with pytest.raises(PefMismatchError):
            main(["test", "--pef", PEF, *flags])
    with pytest.raises(PefError, match=r"none\.pef"):
        main(["test", "--pef", "none.pef"])


def test_a_mistake_ends_with_one_message_and_status_2() -> None:
    """Of a real process; tests/robustness has many more."""
    command = [sys.executable, str(FFN), "test", "--pef", "none.pef"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert "none.pef" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_leaves_out_what_takes_seconds_to_import(data_folder: str) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(FFN.parent)!r})
import sn_boilerplate_main as program
program.main(["compile", "--pef-name=app"])
program.main(["measure-performance", "--pef", "{PEF}", "-n", "3"])
program.main(["run", "--pef", "{PEF}", "--data-folder", {data_folder!r}])
assert not {{"torch._dynamo", "torchvision"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
