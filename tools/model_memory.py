"""The most that a process has resident which trains a row of the model table: it imports what it
needs for that and no more, so that of eager's Batucada is no part.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.models.eager import eager_step
from tests.models.row import Row

STEPS = 10


def peak_here(row: Row, pef: Path) -> int:
    """Bytes, of this process, which loads a PEF, trains and takes the weights back."""
    import batucada as bt

    row = replace(row, double=False)
    model, batches = row.model(), row.batches(STEPS)
    program = bt.load(pef)
    inputs = tuple(bt.NamedTensor(name, tensor) for name, tensor in batches[0].items())
    program.attach(model, inputs, optimizers=[row.optimizer(model)])
    for batch in batches:
        program.run(list(batch), list(batch.values()))[0].tensor().item()
    program.to_host(model)
    return _peak_bytes()


def peak_in_eager(row: Row) -> int:
    """Bytes, of this process."""
    row = replace(row, double=False)
    step = eager_step(row)
    for batch in row.batches(STEPS):
        step(batch).item()
    return _peak_bytes()


def _peak_bytes() -> int:
    """The most that this process had resident; its parent's does not count, as it does in
    getrusage.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
