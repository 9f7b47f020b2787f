"""What a checkpoint holds: enough for a training to go on to the same bits.

Tensors and plain values only, so that `torch.load(..., weights_only=True)` reads it without
Batucada.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from batucada.errors import CheckpointError, OptionError
from batucada.ops.random import RUN, SEED
from batucada.program import Program


@dataclass(frozen=True)
class Progress:
    """How far a training has come: updates made in all, the epoch, counted from 0, and the samples
    of it that all ranks together have seen.  `notes` are plain values of the program's own.
    """

    step: int = 0
    epoch: int = 0
    samples: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def after_batch(self, samples: int, **notes: Any) -> Progress:
        """One update later, of `samples` samples over all ranks."""
        return replace(
            self,
            step=self.step + 1,
            samples=self.samples + samples,
            notes={**self.notes, **notes},
        )

    def next_epoch(self) -> Progress:
        return replace(self, epoch=self.epoch + 1, samples=0)


@dataclass(frozen=True)
class Trained:
    """The program, and the host's model and optimizers that it was traced from."""

    program: Program
    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]

    def state(self, progress: Progress, generators: Sequence[Any]) -> bytes:
        """`generators` are those of every rank.  The host's model is left as it is."""
        self.program.to_host(None, self.optimizers)
        state = {
            "model": self._model_state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "hyperparameters": self.program.hyperparameter_values(),
            "progress": {
                "step": progress.step,
                "epoch": progress.epoch,
                "samples": progress.samples,
                "notes": dict(progress.notes),
            },
            "ranks": list(generators),
        }
        buffer = io.BytesIO()
        torch.save(_plain(state, "state"), buffer)
        return buffer.getvalue()

    def _model_state(self) -> dict[str, Any]:
        """The model's `state_dict` with the program's values."""
        program = self.program
        symbols = {id(tensor): s.name for s, tensor in program.host_tensors(self.model)}
        return {
            key: program.read(symbols[id(value)]) if id(value) in symbols else value
            for key, value in self.model.state_dict(keep_vars=True).items()
        }

    def restore(self, data: bytes, rank: int) -> Progress:
        """Put a state into program, model and optimizers.  CheckpointError if it is of others."""
        state = torch.load(io.BytesIO(data), weights_only=True)
        if len(state["optimizers"]) != len(self.optimizers):
            raise CheckpointError(
                f"the checkpoint is of {len(state['optimizers'])} optimizers, and there are"
                f" {len(self.optimizers)}; give those that it was written with"
            )
        try:
            self.model.load_state_dict(state["model"])
            for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(held)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint is of another model: {error}") from None
        self.program.to_device(self.model, self.optimizers)
        self.program.set_hyperparameter_values(state["hyperparameters"])
        if rank < len(state["ranks"]):
            self.set_generators(state["ranks"][rank])
        elif RUN in self.program.symbols:
            self.program.write(RUN, torch.tensor(state["ranks"][0]["program"]["run"]))
        return Progress(**state["progress"])

    # ---- random numbers

    def generators(self) -> dict[str, Any]:
        """The state of every source of random numbers of this process."""
        kind, words, position, has_gauss, gauss = np.random.get_state()
        symbols = self.program.symbols
        drawn = {"seed": SEED, "run": RUN} if SEED in symbols else {}
        return {
            "program": {key: int(self.program.read(name)) for key, name in drawn.items()},
            "torch": torch.get_rng_state(),
            "numpy": [
                kind,
                torch.from_numpy(np.asarray(words, np.int64)),
                position,
                has_gauss,
                gauss,
            ],
            "python": random.getstate(),
        }

    def set_generators(self, held: Mapping[str, Any]) -> None:
        for key, value in held["program"].items():
            self.program.write({"seed": SEED, "run": RUN}[key], torch.tensor(value))
        torch.set_rng_state(held["torch"])
        kind, words, *rest = held["numpy"]
        np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
        version, words, gauss = held["python"]
        random.setstate((version, tuple(words), gauss))


def _plain(value: Any, place: str) -> Any:
    """The value in types that `torch.load` takes for safe; OptionError names what is not."""
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, Mapping):
        return {
            _plain(key, place): _plain(item, f"{place}[{key!r}]") for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise OptionError(
        f"{place} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, and"
        " lists, tuples and dicts of them"
    )
