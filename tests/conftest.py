"""What all tests share: hypothesis settings that do not depend on how busy the machine is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["BATUCADA_CACHE"] = "off"  # what a user compiled before is no part of a test
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process compiles our source anew

settings.register_profile(
    "batucada",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("batucada")

WHOLE_PROGRAMS = (
    "apps/", "robustness/", "pef/test_read_write", "ops/test_against_eager",
    "ops/test_index_errors", "codegen/test_scalar", "codegen/test_random", "capture/test_in_place",
    "checkpoint/test_resume", "runtime/test_random_", "runtime/test_loop", "runtime/test_host",
    "runtime/test_data_parallel", "runtime/test_gloo", "runtime/test_shared",
    "runtime/test_panels", "runtime/test_oracle",
)  # fmt: skip
"""Tests that compile many programs or start processes: `make check` leaves them to `make test`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix().startswith(WHOLE_PROGRAMS):
            item.add_marker(pytest.mark.slow)
