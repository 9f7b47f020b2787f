"""A copy of the example, compiled once, in which launchers of every kind run it."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys

import pytest

from tests.distributed.processes import EXAMPLES, Place, alone_environ


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Its data are there already: ranks of several jobs fetch nothing."""
    folder = tmp_path_factory.mktemp("examples") / "data_parallel"
    shutil.copytree(EXAMPLES / "data_parallel", folder)
    raw = folder / "mnist_data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (EXAMPLES / "data" / "MNIST" / "raw").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    flags = ["--data-parallel", "-ws", "2", "-b", "32", "--pef-name=replica"]
    subprocess.run(
        [sys.executable, "data_parallel.py", "compile", *flags],
        check=True, cwd=folder, env=alone_environ(), capture_output=True, timeout=120,
    )  # fmt: skip
    return Place(folder)
