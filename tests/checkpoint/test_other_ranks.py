"""A training that goes on with another number of ranks, at the same global batch."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batucada as bt
from batucada.runtime.group import rank, world_size
from tests.runtime.ranks import run_ranks

GLOBAL_BATCH, SAMPLES, EPOCHS = 8, 48, 3
STOP_AFTER = 8  # in the middle of the second epoch
NAMES = ["x", "y"]
State = dict[str, torch.Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.layers(x)
        return nn.functional.mse_loss(out, y), out


def adamw(model: Net) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(model.parameters(), lr=0.02)]


def compiled(folder: Path, ranks: int) -> None:
    model, batch = Net(), GLOBAL_BATCH // ranks
    inputs = [
        bt.NamedTensor("x", torch.zeros(batch, 6)),
        bt.NamedTensor("y", torch.zeros(batch, 2)),
    ]
    path, options = folder / f"{ranks}.pef", bt.Options(data_parallel=True)
    bt.compile(model, inputs, optimizers=adamw(model), path=path, options=options)


def train(number: int, pefs: Path, checkpoints: Path, steps: int) -> State:
    """To the end, or as if killed after `steps`; the parameters and what the optimizer keeps."""
    bt.join()
    torch.manual_seed(number)  # weights of its own, which rank 0's replace
    model = Net()
    optimizers = adamw(model)
    program = bt.load(pefs / f"{world_size()}.pef")
    program.to_device(model, optimizers)  # to trace the net would take longer than to run it
    generator = torch.Generator().manual_seed(7)
    data = TensorDataset(*(torch.randn(SAMPLES, width, generator=generator) for width in (6, 2)))
    sampler = bt.ResumableSampler(data, seed=3)
    batch = GLOBAL_BATCH // world_size()
    loader = DataLoader(data, batch, sampler=sampler, drop_last=True, generator=torch.Generator())
    with bt.Checkpoints(checkpoints, program, model, optimizers, every_steps=4) as kept:
        progress = kept.resume()
        program.replicate()
        while progress.epoch < EPOCHS:
            sampler.set_epoch(progress.epoch, progress.samples)
            for tensors in loader:
                program.run(NAMES, tensors)
                progress = progress.after_batch(GLOBAL_BATCH)
                if kept.after_step(progress) or progress.step == steps:
                    return {}
            progress = progress.next_epoch()
    assert (rank(), progress.step) == (number, EPOCHS * SAMPLES // GLOBAL_BATCH)
    kinds = ("parameter", "state")
    return {s.name: program.read(s.name) for s in program.manifest.of_role(*kinds)}


@pytest.mark.slow
def test_resumed_on_another_number_of_ranks(tmp_path: Path) -> None:
    """The same bits on as many ranks as before, the same to rounding on others."""
    for ranks in (1, 2, 4):
        compiled(tmp_path, ranks)

    def trained(ranks: int, checkpoints: str, steps: int = 0) -> State:
        return run_ranks(train, ranks, tmp_path, tmp_path / checkpoints, steps)[0]

    with ThreadPoolExecutor() as pool:
        whole = pool.submit(trained, 2, "whole")
        killed = [pool.submit(trained, ranks, f"of-{ranks}", STOP_AFTER) for ranks in (2, 4)]
        assert [job.result() for job in killed] == [{}, {}]
        shutil.copytree(tmp_path / "of-2", tmp_path / "also-of-2")
        resumed = [
            pool.submit(trained, ranks, checkpoints)
            for ranks, checkpoints in ((2, "of-2"), (1, "also-of-2"), (2, "of-4"))
        ]
    same, *others = (job.result() for job in resumed)
    for name, value in whole.result().items():
        assert torch.equal(same[name], value), name
        for other in others:
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
