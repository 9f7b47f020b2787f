"""What a model reads of values while it is captured: fixed ones are read, checks are left out,
everything else is refused with the user's line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch._higher_order_ops import while_loop

from batucada.capture import Captured, NamedTensor, capture
from batucada.errors import CaptureError
from batucada.ir.graph import Graph
from batucada.runtime.oracle import evaluate

Forward = Callable[[torch.Tensor], torch.Tensor]
X = torch.tensor([[0.5, -1.0, 2.0, 3.0], [1.0, 4.0, -2.0, 0.25], [7.0, 5.0, 6.0, -3.0]])


class Model(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.function = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x * self.scale)


def captured(forward: Forward) -> Captured:
    return capture(Model(forward), (NamedTensor("x", X),), training=True)


def values_of(graph: Graph, constants: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    given = {node.name: torch.ones(node.type.shape).numpy() for node in graph.inputs}
    given |= {name: tensor.numpy() for name, tensor in constants.items()}
    given |= {"x": X.numpy(), "model__scale": torch.tensor(2.0).numpy()}
    results = evaluate(graph, given)
    return [torch.as_tensor(results["output", out.name]) for out in graph.of_role("output")]


def item_of_constants(x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(4)
    mask[1:] = 1
    return x * mask.sum().item() * int(torch.tensor([3, 5]).max())


def range_of_constant(x: torch.Tensor) -> torch.Tensor:
    for step in range(torch.tensor(3)):  # type: ignore[arg-type]
        x = x + step
    return x


def branch_on_constant(x: torch.Tensor) -> torch.Tensor:
    return x if torch.arange(4).sum() > 5 else -x


def mask_of_constants(x: torch.Tensor) -> torch.Tensor:
    below = torch.ones(3, 4, dtype=torch.bool).tril()
    return torch.cat([x[below], x[:, torch.tensor([True, False, False, True])].flatten()])


def where_of_constants(x: torch.Tensor) -> torch.Tensor:
    return x * torch.where(torch.tensor([1, 0, 1, 1]) == 1)[0].shape[0]


def repeats_of_constants(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(torch.tensor([1, 2, 0]), dim=0)


def equality_of_constants(x: torch.Tensor) -> torch.Tensor:
    return x if torch.equal(torch.arange(2), torch.tensor([0, 1])) else -x


def list_of_constants(x: torch.Tensor) -> torch.Tensor:
    return x * sum(torch.arange(4).tolist()) + sum(torch.tensor([[2], [3]]).tolist()[1])


def lists_as_indices(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[[0, 2], 1:] = 5.0
    y[:, [False, True, False, True]] *= 2
    return torch.cat([y[..., [-2]], y[:, [[0, 1], [1, 2]]].flatten(1), x[np.array([2, 0, 1])]], 1)


@pytest.mark.parametrize(
    "forward",
    [
        list_of_constants, lists_as_indices, item_of_constants, range_of_constant,
        branch_on_constant, mask_of_constants,
        where_of_constants, repeats_of_constants, equality_of_constants,
    ],
)  # fmt: skip
def test_fixed_values_are_read(forward: Forward) -> None:
    found = captured(forward)
    assert torch.equal(values_of(found.graph, found.constants)[0], forward(2 * X))


def test_constants_that_only_steer_are_not_kept() -> None:
    assert not captured(where_of_constants).constants


@pytest.mark.parametrize(("value", "by_places"), [(0.0, False), ([1.0, 2.0, 3.0], True)])
def test_a_mask_stays_one_where_one_number_is_written(value: object, by_places: bool) -> None:
    def assigned(x: torch.Tensor) -> torch.Tensor:
        return x.index_put((torch.eye(3, 4) > 0,), torch.tensor(value))

    constants = captured(assigned).constants.values()
    assert (torch.int64 in {tensor.dtype for tensor in constants}) is by_places


def raise_if_any(x: torch.Tensor) -> torch.Tensor:
    if x.max() is not None and (x > 1e6).any():
        message = "too large"
        raise ValueError(message)
    return x + 1


def raise_unless_all(x: torch.Tensor) -> torch.Tensor:
    if not (x < 1e6).all():
        raise ValueError("too large")
    return x + 1


def raise_otherwise(x: torch.Tensor) -> torch.Tensor:
    if x.max() < 1e6 and (x > -1e6).all():
        x = x + 1
    else:
        raise ValueError("too large")
    return x


def assertion(x: torch.Tensor) -> torch.Tensor:
    assert (x < 1e6).all(), "too large"
    assert not (x > 1e6).any()
    return x + 1


def torch_checks(x: torch.Tensor) -> torch.Tensor:
    torch._check_tensor_all(x < 1e6)
    torch.ops.aten._assert_async.default((x < 1e6).all())
    return x + 1


def number_in_a_check(x: torch.Tensor) -> torch.Tensor:
    if x.max().item() > 1e6:
        raise ValueError(f"{x.max().item():.2f} is too large")
    assert x.min().item() < 1e6
    return x + 1


@pytest.mark.parametrize(
    "forward",
    [raise_if_any, raise_unless_all, raise_otherwise, assertion, torch_checks, number_in_a_check],
)
def test_checks_are_left_out(forward: Forward) -> None:
    found = captured(forward)
    assert torch.equal(values_of(found.graph, found.constants)[0], 2 * X + 1)


def branch(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:  # depends on the input
        return x
    return -x


def warned(x: torch.Tensor) -> torch.Tensor:
    if (x > 0).any():  # depends on the input
        x = x + 1
        raise_if_any(x)
    return x


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x + int(x.sum().item())  # depends on the input


def masked(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]  # depends on the input


def counted(x: torch.Tensor) -> torch.Tensor:
    return torch.nonzero(x).float()  # depends on the input


def selected(x: torch.Tensor) -> torch.Tensor:
    return torch.masked_select(x, x > 0)  # depends on the input


def distinct(x: torch.Tensor) -> torch.Tensor:
    return torch.unique_consecutive(x)  # depends on the input


def listed(x: torch.Tensor) -> torch.Tensor:
    return x * sum(x.flatten().tolist())  # depends on the input


def looped(x: torch.Tensor) -> torch.Tensor:
    return while_loop(lambda y: y.sum() < 3, lambda y: (y + 1,), (x,))[0]  # depends on the input


@pytest.mark.parametrize(
    "forward",
    [
        branch, warned, rounded, masked, counted, selected, distinct, listed, looped,
    ],
)  # fmt: skip
def test_values_of_inputs_are_refused(forward: Forward) -> None:
    with pytest.raises(CaptureError, match=r"test_values\.py:(\d+)") as caught:
        captured(forward)
    line = int(str(caught.value).split("test_values.py:")[1].split(":")[0])
    with open(__file__) as source:
        assert "# depends on the input" in source.read().splitlines()[line - 1]
    assert "torch.where" in str(caught.value)


class AsLibrariesDo(nn.Module):
    """A shortcut that looks at values, left out where PyTorch says that it compiles."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and mask.all():
            return x
        return x.masked_fill(~mask, 0.0)


def test_shortcuts_of_libraries_are_left_out() -> None:
    inputs = (NamedTensor("x", X), NamedTensor("mask", X > 0))
    found = capture(AsLibrariesDo(), inputs, training=False)
    assert [node.op for node in found.graph.nodes][-1] == "where"
    assert not torch.compiler.is_compiling()
