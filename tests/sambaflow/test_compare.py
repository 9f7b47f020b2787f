"""`assert_close`: its rule, either way round, and what it says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sambaflow import samba
from sambaflow.samba.utils.compare import assert_close

NUMBERS = st.floats(-1e3, 1e3, width=32)


@given(NUMBERS, NUMBERS, st.floats(0, 1), st.floats(0, 1))
def test_the_rule(a: float, b: float, threshold: float, rtol: float) -> None:
    allowed = threshold + rtol * max(abs(a), abs(b))
    for pair in ((a, b), (b, a)):
        first, second = (torch.tensor([x], dtype=torch.float64) for x in pair)
        if abs(a - b) <= allowed:
            assert assert_close(first, second, "x", threshold, rtol) == abs(a - b)
        else:
            with pytest.raises(AssertionError):
                assert_close(first, second, "x", threshold, rtol)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_agree_with_themselves_only(bad: float) -> None:
    assert_close(torch.tensor([bad]), torch.tensor([bad]), "x")
    for other in (1.0, -bad if math.isinf(bad) else 0.0):
        with pytest.raises(AssertionError):
            assert_close(torch.tensor([bad]), torch.tensor([other]), "x", threshold=1e9)


def test_the_message_names_the_worst_place() -> None:
    device = samba.from_torch_tensor(torch.zeros(2, 3))
    host = torch.zeros(2, 3)
    host[1, 2] = 4
    host[0, 1] = 2
    with pytest.raises(AssertionError, match=r"logits: 2 of 6 .* at \(1, 2\): 0 against 4"):
        assert_close(device, host, "logits")


def test_shapes_with_as_many_elements_agree() -> None:
    assert assert_close(torch.ones(4, 1), torch.ones(4), "x") == 0
    with pytest.raises(AssertionError, match="shapes"):
        assert_close(torch.ones(4), torch.ones(5), "x")
