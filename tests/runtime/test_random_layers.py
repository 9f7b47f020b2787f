"""Random layers as inference: what they read of their weights, which lie as their products want
them, is what eager reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

import batucada as bt

CHANNELS = st.sampled_from((16, 33, 48, 64, 70, 128))  # around the sixteen columns of a panel
ROWS = st.sampled_from((1, 2, 9, 24, 49, 100))  # around the few rows and the blocks of 48
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


class First(nn.Module):
    """The first of several results."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    kernel, stride = draw(st.sampled_from((1, 2, 3, 5))), draw(st.integers(1, 2))
    padding, dilation = draw(st.integers(0, kernel)), draw(st.sampled_from((1, 1, 3)))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    inputs, outputs, batch = draw(CHANNELS), draw(CHANNELS), draw(st.sampled_from((1, 3, 8, 30)))
    assume(min(height, width) + 2 * padding > dilation * (kernel - 1))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    return lambda: nn.Conv2d(inputs, outputs, kernel, **options), (batch, inputs, height, width)


@st.composite
def perceptrons(draw: st.DrawFn) -> Case:
    sizes = st.sampled_from((17, 64, 100, 333, 1100))
    inputs, hidden, outputs = draw(sizes), draw(sizes), draw(sizes)

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))

    return build, (draw(ROWS), inputs)


@st.composite
def recurrences(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from((nn.LSTM, nn.GRU)))
    inputs, hidden = draw(CHANNELS), draw(st.sampled_from((16, 40)))
    return lambda: First(kind(inputs, hidden)), (4, draw(st.sampled_from((1, 3, 25))), inputs)


@settings(max_examples=10)
@given(case=st.one_of(convolutions(), perceptrons(), recurrences()), threads=st.integers(1, 2))
@example((lambda: nn.Conv2d(64, 64, 3, padding=1), (8, 64, 1, 1)), 1)
def test_as_eager(case: Case, threads: int) -> None:
    build, shape = case
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(shape)
    with tempfile.TemporaryDirectory() as folder:
        path, given_inputs = Path(folder) / "m.pef", (bt.NamedTensor("x", x),)
        bt.compile(model, given_inputs, path=path)
        program = bt.load(path, bt.Options(threads=threads))
        program.attach(model, given_inputs)
        found = program.run(["x"], [x])[0].tensor().clone()
    with torch.no_grad():
        torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
