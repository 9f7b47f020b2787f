"""Compile, test, train and measure the FFN of ffn_mnist by the commands a user types.

Trains on the MNIST files in $MNIST_DATA or mnist_data/ if they are there, else on the sample in
examples/data, and closes with the speed of PyTorch eager on this machine beside ours.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

EXAMPLES = Path(__file__).resolve().parent
PROGRAM = EXAMPLES / "ffn_mnist" / "sn_boilerplate_main.py"
NAME = "demo"
STEPS = 20_000
EAGER_STEPS = 2_000


def main() -> int:
    output = Path("out")
    pef, timing = output / NAME / f"{NAME}.pef", output / NAME / "timing.json"
    commands = (
        ["compile", "--pef-name", NAME, "--output-folder", str(output)],
        ["test", "--pef", str(pef)],
        ["run", "--pef", str(pef), "--data-folder", str(data_folder(output))],
        ["measure-performance", "--pef", str(pef), "-n", str(STEPS), "--json", str(timing)],
    )
    for command in commands:
        status = echo_and_run([sys.executable, str(PROGRAM), *command])
        if status != 0:
            return status
    ours, eager = json.loads(timing.read_text())["throughput"], eager_throughput()
    print("\nTraining, one sample a step, on this machine, samples a second:")
    print(f"  PyTorch eager  {eager:>9,.0f}")
    print(f"  Batucada       {ours:>9,.0f}  ({ours / eager:.0f} times as many)")
    return 0


def data_folder(output: Path) -> Path:
    """Where the full MNIST is; else the sample, in a folder of its own where it may be unpacked."""
    candidates = [Path(folder) for folder in (os.environ.get("MNIST_DATA"), "mnist_data") if folder]
    for folder in candidates:
        if list(folder.glob("MNIST/raw/train-images-idx3-ubyte*")):
            print(f"Data: all of MNIST, from {folder}")
            return folder
    print(
        f"Data: a sample; the full MNIST was found neither in $MNIST_DATA nor in {candidates[-1]}"
    )
    return Path(shutil.copytree(EXAMPLES / "data", output / "mnist_sample", dirs_exist_ok=True))


def echo_and_run(command: list[str]) -> int:
    """Run `command` as if typed; returns its exit status."""
    shown = ["python", os.path.relpath(command[1]), *command[2:]]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    return subprocess.run(command, check=False).returncode


def eager_throughput() -> float:
    """Samples a second of the same training step in plain PyTorch, in a loop of single steps."""
    model = nn.Sequential(
        nn.Linear(784, 32, bias=False),
        nn.ReLU(),
        nn.Linear(32, 32, bias=False),
        nn.Linear(32, 10, bias=False),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, weight_decay=1e-4)
    torch.set_num_threads(1)  # quicker than more of them at one sample a step
    image, label = torch.randn(1, 784), torch.tensor([3])

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image), label).backward()
            optimizer.step()
        return time.perf_counter() - start

    run(EAGER_STEPS // 10)
    return EAGER_STEPS / run(EAGER_STEPS)


if __name__ == "__main__":
    sys.exit(main())
