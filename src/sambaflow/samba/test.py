"""`samba.test`: checks that programs put around their own functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from batucada.errors import OptionError
from sambaflow.samba.sambatensor import unwrap


def consistency_test(*_options: Any, **_more: Any) -> Callable:
    """Decorator: run the function twice from the same random state and compare bit by bit.

    The function returns a list of (name, tensor).  AssertionError names those that differ.
    """

    def decorate(function: Callable[..., Sequence[tuple[str, Any]]]) -> Callable:
        @functools.wraps(function)
        def run_twice(*args: Any, **kwargs: Any) -> Sequence[tuple[str, Any]]:
            state = torch.get_rng_state()
            first = [(name, unwrap(value).clone()) for name, value in function(*args, **kwargs)]
            torch.set_rng_state(state)
            second = function(*args, **kwargs)
            _check_equal(first, second)
            return second

        return run_twice

    return decorate


def _check_equal(first: Sequence[tuple[str, Any]], second: Sequence[tuple[str, Any]]) -> None:
    pairs = zip(first, second, strict=True)
    differing = [name for (name, a), (_, b) in pairs if not torch.equal(a, unwrap(b))]
    if differing:
        raise AssertionError(f"not the same in two runs: {', '.join(differing)}")


class TestWithGold:
    """Refuses to be made: the format of the vendor's gold files is not public."""

    __test__ = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OptionError(
            "samba.test.TestWithGold is not there: compare with the model on the host instead, "
            "with samba.utils.assert_close"
        )
