"""A few kills of the kill test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.distributed.processes import ROOT, alone_environ


@pytest.mark.slow
def test_killed_and_resumed() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kill_test.py", "--kills=3", "--seed=5"],
        cwd=ROOT, env=alone_environ(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert sum(figures["kills"].values()) == 3
    assert figures["compared_with_unkilled"] > 0
