"""A process that runs a program holds what the program needs, and nothing of the compiler."""

from __future__ import annotations

import gc
import linecache
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada.capture import capture
from batucada.capture.recorder import Recorder

_RUN = """
import sys
import torch
from torch import nn
import batucada as bt
torch.manual_seed(1)
model, x = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.SiLU()), torch.tensor([1, 4])
inputs = (bt.NamedTensor("x", x),)
optimizer = torch.optim.AdamW(model.parameters())
"""
_LEFT_OUT = (
    "llvmlite", "batucada.pipeline", "batucada.passes", "batucada.mapping", "batucada.artifact",
    "batucada.codegen.llvm", "batucada.ir.loops", "batucada.checkpoint", "batucada.runtime.group",
    "batucada.runtime.replicas", "batucada.runtime.profile", "batucada.pef.show",
    "batucada.capture.complex_numbers", "batucada.ops.conv", "batucada.ops.pool",
    "batucada.ops.sort", "batucada.ops.ctc", "batucada.ops.resample",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_imports_nothing_of_the_compiler(tmp_path: Path) -> None:
    path = tmp_path / "m.pef"
    compiling = f"{_RUN}bt.compile(model, inputs, optimizers=[optimizer], path={str(path)!r})"
    running = f"""{_RUN}
program = bt.load({str(path)!r})
program.attach(model, inputs, optimizers=[optimizer])
program.run(["x"], [x])
program.to_host(model, [optimizer])
print(*(name for name in {_LEFT_OUT} if name in sys.modules))
"""
    said = [
        subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
        for text in (compiling, running)
    ]
    assert said[1].stdout.split() == []


def test_source_lines_that_libraries_read_are_not_kept(tmp_path: Path) -> None:
    model, x = nn.Linear(3, 2), bt.NamedTensor("x", torch.ones(1, 3))
    bt.compile(model, (x,), path=tmp_path / "m.pef")
    in_no_file: tuple[int, None, list[str], str] = (1, None, ["x\n"], "<made>")
    linecache.cache["<made>"] = in_no_file
    lines = linecache.getlines(str(nn.__file__))
    bt.load(tmp_path / "m.pef")
    assert nn.__file__ not in linecache.cache
    assert linecache.getlines(str(nn.__file__)) == lines
    assert linecache.cache.pop("<made>") is in_no_file


def test_a_capture_is_not_kept() -> None:
    """Neither by the functions that PyTorch keeps nor by a circle of references."""

    def recorders() -> int:
        return sum(type(held) is Recorder for held in gc.get_objects())

    model, x = nn.Sequential(nn.Linear(3, 4), nn.AlphaDropout()), torch.zeros(2, 3)
    gc.disable()
    try:
        before = recorders()
        captured = capture(model, (bt.NamedTensor("x", x),), training=True)
        assert captured.graph.outputs
        assert recorders() == before
    finally:
        gc.enable()
