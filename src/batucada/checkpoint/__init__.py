"""Checkpoints of a training: written whole or not at all, resumed to the same bits.

with bt.Checkpoints("checkpoints", program, model, [optimizer], every_steps=500) as checkpoints:
    progress = checkpoints.resume()
    while progress.step < steps:
        program.run(names, batch)
        progress = progress.after_batch(batch_size)
        if checkpoints.after_step(progress):
            break
    else:
        checkpoints.save(progress)

On several ranks every rank does the same; rank 0 alone reads and writes the folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from batucada.checkpoint import ranks
from batucada.checkpoint.files import CheckpointFolder, Stored
from batucada.checkpoint.sampler import ResumableSampler as ResumableSampler
from batucada.checkpoint.state import Progress as Progress
from batucada.checkpoint.state import Trained
from batucada.checkpoint.stopping import StopSignals, time_limit
from batucada.errors import BatucadaError, CheckpointError, OptionError, OutputError
from batucada.program import Program

STATE = "state.pt"
DEFAULT_MARGIN_S = 60.0
# How often ranks ask each other whether to stop or to write: seconds, and most steps between.
AGREE_EVERY_S = 0.1
AGREE_EVERY_STEPS = 256
_GO_ON, _WRITE, _STOP = 0, 1, 2


class Checkpoints:
    """The checkpoints of one training in a folder of their own; `keep` of them stay there.

    They are written every `every_steps` updates, every `every_seconds`, and when training has to
    stop: on SIGTERM or SIGUSR1, and `before_limit_s` seconds before the time limit of a Slurm job
    (by default a minute, or a tenth of what is left at the start if that is less).
    """

    def __init__(
        self,
        folder: Path | str,
        program: Program,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        before_limit_s: float | None = None,
        keep: int = 3,
    ) -> None:
        _check_positive(every_steps=every_steps, every_seconds=every_seconds, keep=keep)
        self._path = Path(folder)
        self._trained = Trained(program, model, tuple(optimizers))
        self._every_steps, self._every_seconds, self._keep = every_steps, every_seconds, keep
        self._folder: CheckpointFolder | None = None  # of rank 0 once `resume` has opened it
        self._signals = StopSignals()
        self._deadline = _deadline(before_limit_s) if ranks.rank() == 0 else None
        self._slowest_write_s = 0.0
        self._saved_step = -1
        self._saved_time = self._agreed_time = time.monotonic()
        self._agreed_step = 0
        self._next_agreement = 0
        self._resumed = False

    def __enter__(self) -> Checkpoints:
        self._signals.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._signals.remove()
        if self._folder is not None:
            self._folder.close()

    def resume(self) -> Progress:
        """Continue from the newest whole checkpoint, or from the start where there is none.

        Model, optimizers and program become what they were, random numbers included.  Damaged
        checkpoints are left out with a line on stderr.  CheckpointError when the newest is of
        another model, when all are damaged, or when another run uses the folder; OutputError when
        the folder cannot be written.
        """
        stored: Stored | None = _by_rank_0(self._open)
        self._resumed = True
        if stored is None:
            return Progress()
        try:
            progress = self._trained.restore(stored.files[STATE], ranks.rank())
        except CheckpointError as error:
            raise CheckpointError(f"{stored.path}: {error}") from None
        self._saved_step = self._agreed_step = self._next_agreement = progress.step
        return progress

    def _open(self) -> Stored | None:
        self._folder = CheckpointFolder(self._path, self._keep)
        return self._folder.newest()

    # ---- during training

    def after_step(self, progress: Progress) -> bool:
        """Write a checkpoint if one is due.  True when training is to stop: it has been written.

        A checkpoint that cannot be written is an OutputError when training is to stop, else a line
        on stderr: training goes on, and the next is tried when it is due.
        """
        wish = self._wish(progress.step)
        if wish == _STOP:
            self.save(progress)
            _say(f"{self._reason()}: stopped after step {progress.step}, which {self._path} holds")
            return True
        if wish == _WRITE or (self._every_steps and progress.step % self._every_steps == 0):
            try:
                self.save(progress)
            except OutputError as error:
                _say(f"{error}; training goes on without this checkpoint")
        return False

    def save(self, progress: Progress) -> None:
        """Write a checkpoint now.  OutputError, on every rank, when that fails."""
        if not self._resumed:
            raise OptionError("Checkpoints.resume() comes before the first checkpoint is written")
        if progress.step == self._saved_step:
            return
        generators = ranks.of_all(self._trained.generators())
        began = self._saved_time = time.monotonic()
        _by_rank_0(lambda: self._write(progress, generators))
        self._slowest_write_s = max(self._slowest_write_s, time.monotonic() - began)
        self._saved_step = progress.step

    def _write(self, progress: Progress, generators: list[Any]) -> None:
        assert self._folder is not None, "rank 0 opened it in `resume`"
        about = {
            "step": progress.step,
            "epoch": progress.epoch,
            "samples": progress.samples,
            "world_size": ranks.world_size(),
            "program": self._trained.program.manifest.name,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        state = self._trained.state(progress, generators)
        self._folder.write(progress.step, {STATE: state}, about)

    # ---- what ranks agree on

    def _wish(self, step: int) -> int:
        """What all ranks do after this step.  They ask each other now and then only: messages in
        every step would cost more than small steps themselves.
        """
        if ranks.world_size() == 1:
            return self._own_wish()
        if step < self._next_agreement:
            return _GO_ON
        now = time.monotonic()
        rate = (step - self._agreed_step) / max(now - self._agreed_time, 1e-6)
        apart = max(1, min(int(rate * AGREE_EVERY_S), AGREE_EVERY_STEPS))
        own = apart if ranks.rank() == 0 else 0
        wish, apart = ranks.largest((self._own_wish(), own))
        self._agreed_step, self._agreed_time = step, time.monotonic()
        self._next_agreement = step + apart
        return wish

    def _own_wish(self) -> int:
        """Time is rank 0's affair, signals are everyone's."""
        if self._signals.received:
            return _STOP
        done_by = time.time() + 2 * self._slowest_write_s
        if self._deadline is not None and done_by >= self._deadline:
            return _STOP
        late = self._every_seconds and time.monotonic() - self._saved_time >= self._every_seconds
        return _WRITE if late and ranks.rank() == 0 else _GO_ON

    def _reason(self) -> str:
        return self._signals.received or "the time limit is near, or another rank was signalled"


def _by_rank_0(act: Callable[[], Any]) -> Any:
    """What `act` returns on rank 0, on every rank; and what it raises."""
    result, error = None, None
    if ranks.rank() == 0:
        try:
            result = act()
        except BatucadaError as raised:
            error = raised
    kind, message, result = ranks.of_rank_0((type(error), str(error), result))
    if error is not None:
        raise error
    if issubclass(kind, BatucadaError):
        raise kind(message)
    return result


def _deadline(margin_s: float | None) -> float | None:
    limit = time_limit()
    if limit is None:
        return None
    left = limit - time.time()
    return limit - (min(DEFAULT_MARGIN_S, left / 10) if margin_s is None else margin_s)


def _check_positive(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not value > 0:
            raise OptionError(f"{name} is {value}; expected a positive number")


def _say(line: str) -> None:
    if ranks.rank() == 0:
        print(f"batucada: {line}", file=sys.stderr, flush=True)
