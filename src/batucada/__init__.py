"""Batucada: a PyTorch model, its loss, backward pass and optimizer, compiled ahead of time into one
file.

import batucada as bt

inputs = (bt.NamedTensor("image", x), bt.NamedTensor("label", y))
bt.compile(model, inputs, optimizers=[optimizer], path="out/model.pef")
program = bt.load("out/model.pef")
program.attach(model, inputs, optimizers=[optimizer])
loss, logits = program.run(["image", "label"], [x, y])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from batucada import errors as errors
from batucada.__about__ import __version__ as __version__
from batucada.runtime.resident import forget_source_lines

if TYPE_CHECKING:
    from batucada.capture import NamedTensor as NamedTensor
    from batucada.capture import OutputSpec as OutputSpec
    from batucada.capture import name_inputs as name_inputs
    from batucada.capture import named_leaves as named_leaves
    from batucada.capture import symbol_name as symbol_name
    from batucada.checkpoint import Checkpoints as Checkpoints
    from batucada.checkpoint import Progress as Progress
    from batucada.checkpoint import ResumableSampler as ResumableSampler
    from batucada.config import Options as Options
    from batucada.pef import Manifest as Manifest
    from batucada.pipeline import Compiled as Compiled
    from batucada.pipeline import compile as compile
    from batucada.program import Program as Program
    from batucada.program import load as load
    from batucada.runtime.group import collective as collective
    from batucada.runtime.group import join as join
    from batucada.runtime.launch import Launch as Launch
    from batucada.runtime.results import Result as Result

_HOMES = {
    "NamedTensor": "batucada.capture",
    "OutputSpec": "batucada.capture",
    "name_inputs": "batucada.capture",
    "named_leaves": "batucada.capture",
    "symbol_name": "batucada.capture",
    "Checkpoints": "batucada.checkpoint",
    "Progress": "batucada.checkpoint",
    "ResumableSampler": "batucada.checkpoint",
    "Options": "batucada.config",
    "Manifest": "batucada.pef",
    "Compiled": "batucada.pipeline",
    "collective": "batucada.runtime.group",
    "join": "batucada.runtime.group",
    "compile": "batucada.pipeline",
    "Program": "batucada.program",
    "load": "batucada.program",
    "Launch": "batucada.runtime.launch",
    "Result": "batucada.runtime.results",
}

forget_source_lines()  # of PyTorch and whatever else: a model that is built now has their memory

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Names are imported on first use: `batucada show` does not pay for PyTorch, nor a process that
    builds its model first for what comes after.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'batucada' has no attribute {name!r}")
    forget_source_lines()  # of what is imported meanwhile: its memory is enough for the next import
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
