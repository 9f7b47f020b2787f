"""What capture says of models that it cannot compile: the user's line, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from batucada.capture import NamedTensor, capture, describe_optimizers
from batucada.errors import BatucadaError, CaptureError, InputError, UnsupportedOpError


class Model(nn.Module):
    """Two layers, and in between whatever a test wants to go wrong."""

    def __init__(self, wrong: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
        self.wrong = wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.wrong(self.first(x)))


def error_of(model: nn.Module, kind: type[BatucadaError] = CaptureError, x: Any = None) -> str:
    given = NamedTensor("x", torch.zeros(3, 4)) if x is None else x
    with pytest.raises(kind) as caught:
        capture(model, (given,), training=True)
    return str(caught.value)


def line_in(text: str) -> str:
    """The source line that a message names; the message must name this file."""
    match = re.search(r"test_errors\.py:(\d+)", text)
    assert match, f"no line of this file in: {text}"
    with open(__file__) as source:
        return source.read().splitlines()[int(match[1]) - 1]


def test_item() -> None:
    message = error_of(Model(lambda h: h * int(h.sum().item())))
    assert ".item()" in line_in(message)
    assert "torch.where" in message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda h: h[: h.argmax().item()],
        lambda h: h + torch.zeros(h.argmax().item(), 1).sum(),
        lambda h: nn.functional.leaky_relu(h, h.max().item()),
    ],
)
def test_numbers_that_have_to_be_known(wrong: Callable[[torch.Tensor], torch.Tensor]) -> None:
    message = error_of(Model(wrong))
    assert ".item()" in line_in(message)
    assert "read of a tensor" in message or "reads of a tensor" in message


def test_branch_on_data() -> None:
    def wrong(h: torch.Tensor) -> torch.Tensor:
        if h.sum() > 0:
            return h
        return -h

    message = error_of(Model(wrong))
    assert "if h.sum() > 0" in line_in(message)
    assert "static" in message


def test_shapes_that_do_not_fit() -> None:
    message = error_of(Model(lambda h: h @ torch.zeros(3, 3, device=h.device)))
    assert "h @ torch.zeros" in line_in(message)
    assert "8" in message
    assert "3" in message


class ChangesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return self.layer(x)


def test_an_input_changed_in_place() -> None:
    message = error_of(ChangesItsInput())
    assert "x.mul_(2)" in line_in(message)
    assert "input x" in message
    assert "clone" in message


def test_an_expanded_tensor_changed_in_place() -> None:
    def wrong(h: torch.Tensor) -> torch.Tensor:
        twice = (h * 1).expand(2, *h.shape)
        twice[0].mul_(2)
        return twice

    message = error_of(Model(wrong))
    assert "twice[0].mul_(2)" in line_in(message)
    assert "clone" in message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda h: h * torch.poisson(h.exp(), generator=torch.Generator()),
        lambda h: h * torch.rrelu(h, training=True, generator=torch.Generator()),
        lambda h: h + torch.empty_like(h).normal_(generator=torch.Generator()),
        lambda h: h * torch.rand(8, generator=torch.Generator()),
    ],
    ids=["poisson", "rrelu", "normal_", "rand"],
)
def test_random_numbers(wrong: Callable[[torch.Tensor], torch.Tensor]) -> None:
    message = error_of(Model(wrong), UnsupportedOpError)
    assert line_in(message)
    assert "leave it out" in message


def test_all_unsupported_operators_are_reported_at_once() -> None:
    def wrong(h: torch.Tensor) -> torch.Tensor:
        h = h * torch.poisson(h, generator=torch.Generator())
        return h + torch.rand(8, generator=torch.Generator()).sum()

    message = error_of(Model(wrong), UnsupportedOpError)
    assert "aten.poisson" in message
    assert "aten.rand" in message
    assert len(re.findall(r"test_errors\.py:\d+", message)) >= 2


def test_an_exception_of_the_forward() -> None:
    def wrong(h: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such mode")

    message = error_of(Model(wrong))
    assert "raise ValueError" in line_in(message)
    assert "ValueError: no such mode" in message


def test_inputs_that_do_not_fit_the_forward() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
            return x + missing

    message = error_of(Sum())
    assert "def forward(self, x: torch.Tensor, missing" in line_in(message)
    assert "missing 1 required positional argument" in message


def test_no_tensor_is_returned() -> None:
    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            return None

    assert "returns no tensor" in error_of(Nothing())


def test_nothing_to_train() -> None:
    model = nn.Linear(4, 2).requires_grad_(False)
    assert "requires a gradient" in error_of(model)


def test_two_inputs_of_one_name() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    twice = NamedTensor("x", torch.zeros(3))
    with pytest.raises(InputError, match="'x'"):
        capture(Sum(), (twice, twice), training=False)


def test_complex_numbers_of_half_precision() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.view_as_real(torch.view_as_complex(x.half()))

    x = NamedTensor("x", torch.zeros(3, 2))
    assert "float16 are not supported; cast to float32" in error_of(Half(), x=x)


def test_a_complex_loss() -> None:
    class Loss(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).sum()

    x = NamedTensor("x", torch.zeros(3, requires_grad=True))
    with pytest.raises(CaptureError, match="the loss is complex"):
        capture(Loss(), (x,), training=True)


def test_an_optimizer_without_a_compiled_form() -> None:
    class Lion(torch.optim.Optimizer):
        pass

    model = nn.Linear(4, 2)
    with pytest.raises(CaptureError, match="Lion cannot be compiled; use one of SGD"):
        describe_optimizers(model, [Lion(model.parameters(), {})])


def test_an_optimizer_of_another_model() -> None:
    other = torch.optim.SGD(nn.Linear(5, 2).parameters(), lr=0.1)
    with pytest.raises(CaptureError, match=r"\(2, 5\).*model has not"):
        describe_optimizers(nn.Linear(4, 2), [other])


def test_the_model_is_left_as_it_was() -> None:
    model = Model(lambda h: h * int(h.sum().item()))
    before = dict(model.named_parameters())
    error_of(model)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript() -> None:
    traced: Any = torch.jit.trace(nn.Linear(4, 4), torch.zeros(1, 4))
    assert error_of(nn.Sequential(traced, nn.Linear(4, 2))).startswith("0 is TorchScript")
