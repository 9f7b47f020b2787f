"""PyTorch's operators of control flow while a model is captured: `torch.cond`, `while_loop`, `scan`
and `map`.

A program has no branches: both ways are computed and one is picked, loops are written out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from batucada.capture.methods import Values


@contextmanager
def written_out(values: Values) -> Iterator[None]:
    def one_of(condition: Any, if_true: Any, if_false: Any, operands: Any) -> Any:
        return _one_of(condition, if_true, if_false, operands, values)

    operators = {"cond_op": one_of, "while_loop_op": _loop, "scan_op": _scan, "map_impl": _map}
    with ExitStack() as stack:
        for name, form in operators.items():
            module = sys.modules[f"torch._higher_order_ops.{name.rpartition('_')[0]}"]
            stack.enter_context(patch.object(module, name, form))
        yield


def _one_of(
    condition: Any, if_true: Any, if_false: Any, operands: Sequence[Any], values: Values
) -> Any:
    if isinstance(condition, torch.Tensor):
        with _disable_current_modes():
            known = values(condition)
        if known is None:
            pick = condition.reshape(())
            return tree_map(
                lambda a, b: torch.where(pick, a, b), if_true(*operands), if_false(*operands)
            )
        condition = bool(known)
    return if_true(*operands) if condition else if_false(*operands)


def _loop(
    condition: Callable[..., Any], body: Callable[..., Any], carried: Any, additional: Any
) -> Any:
    """Its condition is read as any other value is."""
    while condition(*carried, *additional):
        carried = body(*carried, *additional)
    return carried


def _scan(
    combine: Callable[..., Any], start: Any, xs: Any, additional_inputs: Any
) -> tuple[Any, ...]:
    """`combine` takes and returns flat tensors: those carried, then those of a step."""
    carried, steps = list(start), []
    for index in range(xs[0].shape[0]):
        found = combine(*carried, *(x[index] for x in xs), *additional_inputs)
        carried = found[: len(start)]
        steps.append(found[len(start) :])
    return *carried, *(torch.stack(step) for step in zip(*steps, strict=True))


def _map(function: Callable[..., Any], xs: Any, additional: Any) -> Any:
    found = [function(*step, *additional) for step in zip(*xs, strict=True)]
    return tree_map(lambda *parts: torch.stack(parts), *found)
