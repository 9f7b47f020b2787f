"""Weights that inference alone reads are stored as the tiles of products read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt

CASES = {
    "matrix": (nn.Sequential(nn.Linear(333, 96), nn.ReLU(), nn.Linear(96, 64)), (30, 333)),
    "shared by steps": (nn.LSTM(33, 32, batch_first=True), (25, 3, 33)),
    "taps": (nn.Conv2d(40, 80, 3, padding=1), (2, 40, 7, 9)),
    "taps of small images": (nn.Conv2d(70, 80, 3, stride=2, padding=1), (7, 70, 4, 3)),
    "deep taps": (nn.Conv2d(128, 96, 3, stride=2, padding=1), (1, 128, 12, 12)),
}


def compiled(
    model: nn.Module, shape: tuple[int, ...], folder: Path
) -> tuple[bt.Program, torch.Tensor]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    given, path = (bt.NamedTensor("x", x),), folder / "m.pef"
    bt.compile(model, given, path=path, options=bt.Options(checked=True, cache="off"))
    program = bt.load(path)
    program.attach(model, given)
    return program, x


@pytest.mark.parametrize("name", CASES)
def test_products_read_weights_from_panels(name: str, tmp_path: Path) -> None:
    model, shape = CASES[name]
    program, x = compiled(model.eval(), shape, tmp_path)
    assert any(symbol.panel for symbol in program.manifest.symbols)
    with torch.no_grad():
        want = model(x)
    found = program.run(["x"], [x])[0].tensor()
    want = want[0] if isinstance(want, tuple) else want
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_a_weight_of_which_a_product_reads_one_tap_lies_in_rows(tmp_path: Path) -> None:
    """The others see nothing but padding."""
    model = nn.Conv2d(64, 64, 3, padding=1).eval()
    program, x = compiled(model, (8, 64, 1, 1), tmp_path)
    assert not any(symbol.panel for symbol in program.manifest.symbols)
    with torch.no_grad():
        want = model(x)
    torch.testing.assert_close(program.run(["x"], [x])[0].tensor(), want, rtol=1e-4, atol=1e-5)


def test_a_weight_in_panels_is_read_and_written_as_pytorch_has_it(tmp_path: Path) -> None:
    model, shape = CASES["taps"]
    program, _ = compiled(model, shape, tmp_path)
    symbol = next(s for s in program.manifest.symbols if s.panel)
    assert torch.equal(program.read(symbol.name), model.weight)
    other = nn.Conv2d(40, 80, 3, padding=1)
    program.write(symbol.name, other.weight)
    assert torch.equal(program.read(symbol.name), other.weight)
    program.to_host(model)
    assert torch.equal(model.weight, other.weight)


def test_what_many_products_of_a_step_read_is_copied_once(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(20, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0].square().mean()

    torch.manual_seed(0)
    model, x, path = Recurrent(), torch.randn(6, 7, 20), tmp_path / "m.pef"
    optimizers = [torch.optim.SGD(model.parameters(), 0.1)]
    given, options = (bt.NamedTensor("x", x),), bt.Options(checked=True, cache="off")
    done = bt.compile(model, given, optimizers=optimizers, path=path, options=options)
    copies = re.findall(r"= panels\(.*# f32\[([0-9,]+)\]", done.texts["mapping"])
    assert set(copies) == {"64,256", "256,64"}  # forwards, and turned for the way back
    program = bt.load(path)
    program.attach(model, given, optimizers=optimizers)
    for _ in range(2):
        program.run(["x"], [x])
        optimizers[0].zero_grad()
        model(x).backward()
        optimizers[0].step()
    for name, parameter in model.named_parameters():
        symbol = next(s.name for s in program.manifest.symbols if s.target == name)
        torch.testing.assert_close(program.read(symbol), parameter.data, rtol=1e-4, atol=1e-6)


def test_a_weight_that_a_step_changes_or_that_is_looked_up_lies_in_rows(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.words(x) @ self.words.weight

    path, tokens = tmp_path / "m.pef", (bt.NamedTensor("x", torch.arange(40)),)
    bt.compile(Tied(), tokens, path=path)
    assert not any(symbol.panel for symbol in bt.load(path).manifest.symbols)
    model, x = nn.Linear(64, 64), (bt.NamedTensor("x", torch.randn(40, 64)),)
    bt.compile(model, x, optimizers=[torch.optim.SGD(model.parameters(), 0.1)], path=path)
    assert not any(symbol.panel for symbol in bt.load(path).manifest.symbols)
