"""A training that is stopped and resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batucada as bt
from batucada.checkpoint import STATE
from batucada.checkpoint.files import MANIFEST
from batucada.errors import CheckpointError, OptionError, OutputError

BATCH, SAMPLES, EPOCHS = 8, 40, 3
NAMES = ("x", "y")


class Net(nn.Module):
    """Tied weights, running statistics and dropout: what a checkpoint could forget."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.3)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.second(self.drop(self.norm(self.first(x)).relu()))
        return nn.functional.mse_loss(out, y), out


Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

MAKERS: dict[str, Make] = {
    "sgd": partial(torch.optim.SGD, lr=0.05),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, dampening=0.1),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
    "radam": partial(torch.optim.RAdam, lr=0.01),
    "adamax": partial(torch.optim.Adamax, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    "adagrad": partial(torch.optim.Adagrad, lr=0.05, lr_decay=0.1),
    "adadelta": partial(torch.optim.Adadelta, lr=1.0),
    "rprop": partial(torch.optim.Rprop, lr=0.01),
    "asgd": partial(torch.optim.ASGD, lr=0.01, t0=2),
    "adafactor": partial(torch.optim.Adafactor, lr=0.01),
    "muon": partial(torch.optim.Muon, lr=0.01),
}


class Several(Net):
    """With a layer for each optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(8, 8, bias=False) for name in MAKERS})

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [super().forward(x, y)[1], *(layer(x).tanh() for layer in self.layers.values())]
        out = torch.stack(parts).sum(0)
        return nn.functional.mse_loss(out, y), out


def momentum(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [MAKERS["momentum"](model.parameters())]


def one_for_each_layer(model: Several) -> list[torch.optim.Optimizer]:
    return [make(model.layers[name].parameters()) for name, make in MAKERS.items()]


@dataclass
class Job:
    """A training program as one process would run it, in its own model and optimizer."""

    pef: Path
    folder: Path
    net: type[Net] = Net
    optimizers_of: Callable[[Any], list[torch.optim.Optimizer]] = momentum

    def run(self, stop_after: int | None = None, act: Callable[[int], None] | None = None) -> dict:
        """Train to the end, or as if killed after a step; the final parameters, or {}."""
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(5)
        model, data = self.net(), samples()
        optimizers = self.optimizers_of(model)
        program = bt.load(self.pef)
        program.attach(model, data[:BATCH], optimizers=optimizers)
        sampler = bt.ResumableSampler(range(SAMPLES), seed=3)
        with bt.Checkpoints(self.folder, program, model, optimizers, every_steps=2) as checkpoints:
            progress = checkpoints.resume()
            while progress.epoch < EPOCHS:
                sampler.set_epoch(progress.epoch, progress.samples)
                for batch in batches(sampler):
                    noise = torch.randn(BATCH, 8) + random.random() + np.random.random()
                    hyper = {"lr": 0.02} if progress.step == 1 else None  # and it stays
                    program.run(NAMES, [batch[0] + noise, batch[1]], None, hyper)
                    progress = progress.after_batch(BATCH, last=progress.step)
                    if act is not None:
                        act(progress.step)
                    if checkpoints.after_step(progress) or progress.step == stop_after:
                        return {}
                progress = progress.next_epoch()
            checkpoints.save(progress)
        assert progress.notes["last"] == progress.step - 1
        program.to_host(model, optimizers)
        held = {f"optimizer {n}": optimizer.state_dict() for n, optimizer in enumerate(optimizers)}
        return {"model": model.state_dict(), **held}


def samples() -> tuple[bt.NamedTensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(bt.NamedTensor(n, torch.randn(BATCH, 8, generator=generator)) for n in NAMES)


def batches(sampler: bt.ResumableSampler) -> Iterator[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    data = TensorDataset(*(torch.randn(SAMPLES, 8, generator=generator) for _ in NAMES))
    yield from DataLoader(data, BATCH, sampler=sampler, drop_last=True, generator=generator)


def compiled(job: Job) -> Job:
    job.pef.parent.mkdir(exist_ok=True)
    model = job.net()
    bt.compile(model, samples(), optimizers=job.optimizers_of(model), path=job.pef)
    return job


@pytest.fixture(scope="module")
def pef(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pef")
    return compiled(Job(folder / "net.pef", folder)).pef


@pytest.fixture
def job(pef: Path, tmp_path: Path) -> Job:
    return Job(pef, tmp_path / "checkpoints")


def the_same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(the_same(one[k], other[k]) for k in one)
    return one == other


@pytest.mark.slow
def test_resumed_is_as_uninterrupted(tmp_path: Path) -> None:
    """Killed after an odd step, the checkpoint is of the one before, in the middle of an epoch."""
    job = compiled(Job(tmp_path / "net.pef", tmp_path / "whole", Several, one_for_each_layer))
    whole = job.run()
    killed = replace(job, folder=tmp_path / "killed")
    assert killed.run(stop_after=3) == {}
    assert killed.run(stop_after=9) == {}
    resumed = killed.run()
    assert not [what for what in whole if not the_same(resumed[what], whole[what])]


def test_a_finished_training_ends_at_once_with_the_same(job: Job) -> None:
    steps: list[int] = []
    whole = job.run(act=steps.append)
    assert steps == list(range(1, EPOCHS * SAMPLES // BATCH + 1))
    assert the_same(job.run(act=steps.append), whole)
    assert len(steps) == EPOCHS * SAMPLES // BATCH


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_with_a_checkpoint(job: Job, number: signal.Signals, capsys) -> None:
    before = signal.getsignal(number)
    stopped = job.run(act=lambda step: os.kill(os.getpid(), number) if step == 7 else None)
    assert stopped == {}
    assert f"{number.name}: stopped after step 7" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    resumed: list[int] = []
    job.run(act=resumed.append)
    assert resumed[0] == 8


def test_the_time_limit_stops_with_a_checkpoint(job: Job, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    assert job.run() == {}
    assert "the time limit is near" in capsys.readouterr().err
    monkeypatch.delenv("SLURM_JOB_ID")
    resumed: list[int] = []
    job.run(act=resumed.append)
    assert resumed[0] == 2


def test_pytorch_alone_reads_a_checkpoint(job: Job) -> None:
    final = job.run()
    state = torch.load(max(job.folder.glob("step-*")) / STATE)
    assert state["progress"] == {"step": 15, "epoch": 3, "samples": 0, "notes": {"last": 14}}
    model = Net()
    model.load_state_dict(state["model"])
    (optimizer,) = job.optimizers_of(model)
    optimizer.load_state_dict(state["optimizers"][0])
    assert the_same(model.state_dict(), final["model"])
    assert the_same(optimizer.state_dict(), final["optimizer 0"])


def test_a_checkpoint_leaves_the_host_model_alone(job: Job) -> None:
    """The host's weights change on `to_host` only."""
    model = Net()
    optimizers = job.optimizers_of(model)
    program = bt.load(job.pef)
    program.attach(model, samples(), optimizers=optimizers)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with bt.Checkpoints(job.folder, program, model, optimizers) as checkpoints:
        progress = checkpoints.resume()
        program.run(NAMES, [leaf.tensor for leaf in samples()])
        checkpoints.save(progress.after_batch(BATCH))
    assert the_same(model.state_dict(), before)
    saved = torch.load(job.folder / "step-000000001" / STATE)["model"]
    assert not torch.equal(saved["first.weight"], before["first.weight"])
    assert torch.equal(saved["first.weight"], saved["second.weight"])


def test_damage_and_another_model(job: Job, capsys) -> None:
    whole = job.run()
    newest = max(job.folder.glob("step-*"))
    (newest / STATE).write_bytes((newest / STATE).read_bytes()[:-1])
    assert the_same(job.run(), whole)
    assert f"{newest} is damaged and left out: {STATE} is not" in capsys.readouterr().err
    other = Net(width=4)
    program = bt.load(job.pef)
    with (
        bt.Checkpoints(job.folder, program, other, job.optimizers_of(other)) as checkpoints,
        pytest.raises(
            CheckpointError,
            match=r"(?s)step-\d+: the checkpoint is of another model: .*size mismatch",
        ),
    ):
        checkpoints.resume()


def test_training_goes_on_when_a_checkpoint_cannot_be_written(job: Job, capsys) -> None:
    def fill_the_disk(step: int) -> None:
        """What a full disk would refuse: here a file is where the folder would be made."""
        for later in range(4, 20):
            (job.folder / f".step-{later:09d}.partial").touch()

    with pytest.raises(OutputError, match=r"cannot write .*step-000000015"):
        job.run(act=fill_the_disk)
    said = capsys.readouterr().err
    assert "step-000000004: File exists; training goes on without this checkpoint" in said
    assert [entry.name for entry in job.folder.glob("step-*")] == ["step-000000002"]


def test_mistakes(job: Job, tmp_path: Path) -> None:
    model = Net()
    program = bt.load(job.pef)
    with pytest.raises(OptionError, match="keep is 0"):
        bt.Checkpoints(tmp_path, program, model, keep=0)
    with bt.Checkpoints(tmp_path, program, model) as checkpoints:
        with pytest.raises(OptionError, match="resume"):
            checkpoints.save(bt.Progress())
        progress = checkpoints.resume().after_batch(1, seen={1, 2})
        with pytest.raises(OptionError, match=r"state\['progress'\]\['notes'\]\['seen'\] is a set"):
            checkpoints.save(progress)
    assert MANIFEST not in os.listdir(tmp_path)


def test_every_number_of_ranks_sees_the_same_global_batches() -> None:
    data = TensorDataset(torch.arange(50))

    def sampler(ranks: int, rank: int, first: int) -> bt.ResumableSampler:
        made = bt.ResumableSampler(range(50), seed=1)
        made.num_replicas, made.rank = ranks, rank
        made.set_epoch(4, first)
        assert len(list(made)) == len(made)
        return made

    def seen(ranks: int, first: int) -> list[set[int]]:
        """The samples of each global batch of 12."""
        parts = [
            [batch for (batch,) in DataLoader(data, 12 // ranks, sampler=own, drop_last=True)]
            for own in (sampler(ranks, rank, first) for rank in range(ranks))
        ]
        return [set(torch.cat(batch).tolist()) for batch in zip(*parts, strict=True)]

    alone = seen(1, 0)
    assert len(alone) == 4
    assert alone == seen(2, 0) == seen(3, 0) == seen(4, 0)
    assert alone[2:] == seen(4, 24) == seen(3, 24)
    torchs = torch.utils.data.DistributedSampler(data, 4, 1, seed=1, drop_last=True)
    torchs.set_epoch(4)
    assert list(sampler(4, 1, 0)) == list(torchs)
