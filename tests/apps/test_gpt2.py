"""The GPT-2 example: train, save, evaluate and generate by the commands a user types."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.apps import ROOT, load_program

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="pip install '.[models]'"
)
SMALL = "--num-layers 1 --num-heads 2 --hidden-size 16 --max-seq-length 16".split()
TRAINING = [*SMALL, "-b", "32"]
PEF = ["--pef", "out/gpt2/gpt2.pef"]
GENERATOR = ["--pef", "out/generate/generate.pef"]


@pytest.fixture(scope="module")
def program() -> Any:
    return load_program(ROOT / "examples" / "gpt2" / "gpt2.py")


@pytest.mark.slow
def test_train_and_generate(
    program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program.main(["compile", "--pef-name=gpt2", *TRAINING])
    program.main(["test", *PEF, *TRAINING])
    printed = capsys.readouterr().out
    assert "gradient of transformer.wte.weight: largest difference" in printed
    assert "Test passed" in printed

    program.main(["run", *PEF, *TRAINING, "--num-epochs", "8", "--lr", "0.02"])
    printed = capsys.readouterr().out
    losses = [float(text) for text in re.findall(r"Epoch \[\d/8\], Loss: (\S+)", printed)]
    assert losses[0] > 4  # ln(128) is 4.85
    assert losses[-1] < 3.2  # that of the letters' frequencies is 3.1
    held_out = re.search(r"Held-out Loss: (\S+)", printed)
    assert held_out is not None
    assert float(held_out[1]) < 3.5
    assert "lm_head.weight" in torch.load("gpt2.pt")

    program.main(["measure-performance", *PEF, *TRAINING, "-n", "3"])
    assert "measured over 3 iterations" in capsys.readouterr().out

    program.main(["compile", "--inference", "--pef-name=generate", *SMALL])
    program.main(["test", "--inference", *GENERATOR, *SMALL])
    prompt = ["--prompt", "Twinkle, twinkle", "--max-new-tokens", "12"]
    texts = []
    for temperature in ("0", "0", "0.9"):
        capsys.readouterr()
        given = [*GENERATOR, *SMALL, *prompt, "--temperature", temperature]
        program.main(["run", "--inference", *given])
        texts.append(capsys.readouterr().out.split("generate.pef\n")[1])
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == expected(program) + "\n"


def expected(program) -> str:
    """What the model on the host, with the trained weights, takes for the likeliest text."""
    args = program.parse_app_args(
        ["run", "--inference", *GENERATOR, *SMALL], common_parser_fn=program.add_args,
        run_parser_fn=program.add_run_args,
    )  # fmt: skip
    model = program.make_model(args)
    model.load_state_dict(torch.load("gpt2.pt"))
    tokens = program.encode("Twinkle, twinkle")
    with torch.no_grad():
        for _ in range(12):
            logits = model(tokens[None, -args.max_seq_length :])
            tokens = torch.cat([tokens, logits[0, -1].argmax(keepdim=True)])
    return program.decode(tokens)


@pytest.mark.slow
def test_windows_cover_the_text_once(program) -> None:
    """Without shuffling every token but the first is a label, and every one counts once."""
    args = program.parse_app_args(
        ["run", *PEF, *TRAINING], common_parser_fn=program.add_args,
        run_parser_fn=program.add_run_args,
    )  # fmt: skip
    tokens = program.split(train=False)
    found = [labels[counts] for _, labels, counts in program.batches(args, tokens, shuffle=False)]
    assert torch.equal(torch.cat(found), tokens[1:])
