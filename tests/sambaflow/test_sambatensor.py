"""SambaTensor: shares memory, answers like a tensor, keeps its name through casts."""

# torch's type stubs know nothing of SambaTensors
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from batucada.errors import InputError
from sambaflow import samba
from sambaflow.samba.sambatensor import from_result, plain_results


class CountingResult:
    """A result of a run that counts how often it is fetched."""

    name = "model__loss"

    def __init__(self) -> None:
        self.fetched = 0

    def tensor(self) -> torch.Tensor:
        self.fetched += 1
        return torch.tensor([3.0])


def test_shares_memory_with_its_tensor() -> None:
    plain = torch.zeros(3)
    named = samba.from_torch_tensor(plain, name="x", batch_dim=0)
    plain[1] = 5
    assert named[1].item() == 5
    named[2] = 7
    assert plain[2] == 7
    assert named.torch() is plain
    assert named.torch_tensor() is plain
    assert not isinstance(named, torch.Tensor)


@pytest.mark.parametrize("cast", ["bfloat16", "float", "half", "double", "bool", "int", "short"])
def test_casts_keep_the_name_and_the_batch_dimension(cast: str) -> None:
    named = samba.from_torch(torch.ones(2), name="x", batch_dim=0)
    made = getattr(named, cast)()
    assert (made.name, made.batch_dim) == ("x", 0)
    assert made.dtype == getattr(torch.ones(2), cast)().dtype


def test_a_result_is_fetched_once_and_only_when_it_is_read() -> None:
    result = CountingResult()
    named = from_result(result)
    assert named.name == "model__loss"
    assert result.fetched == 0
    assert named.mean().item() == 3.0
    assert samba.to_torch(named).item() == 3.0
    assert result.fetched == 1


BINARY = ["add", "sub", "mul", "truediv", "pow", "lt", "le", "eq", "ne", "gt", "ge"]
NUMBERS = st.floats(0.5, 4, width=32)


@given(st.sampled_from(BINARY), st.lists(NUMBERS, min_size=1, max_size=4), NUMBERS)
def test_operators_agree_with_torch(name: str, values: list[float], other: float) -> None:
    plain = torch.tensor(values)
    named = samba.from_torch_tensor(plain)
    operator = getattr(__import__("operator"), name)
    for ours, theirs in (
        (operator(named, other), operator(plain, other)),
        (operator(other, named), operator(other, plain)),
        (operator(named, named), operator(plain, plain)),
        (operator(plain, named), operator(plain, plain)),
    ):
        assert isinstance(ours, samba.SambaTensor)
        assert torch.equal(ours.torch(), theirs)


def test_torch_functions_take_it_and_give_it_back() -> None:
    named = samba.from_torch_tensor(torch.randn(4, 3))
    values, places = torch.max(named, 1)
    assert isinstance(values, samba.SambaTensor)
    assert torch.equal(places.torch(), named.torch().argmax(1))
    assert isinstance(torch.stack([named, named]), samba.SambaTensor)
    assert (torch.argmax(named, 1) == places).sum() == 4
    with plain_results():
        assert type(torch.argmax(named, 1)) is torch.Tensor


def test_hints_are_none_until_they_are_set() -> None:
    named = samba.from_torch_tensor(torch.ones(1), name="x")
    assert named.host_memory is None
    named.host_memory = False
    assert named.host_memory is False
    assert named.sn_region_name == "x"
    named.sn_region_name = "cache"
    assert named.sn_region_name == "cache"


def test_empty_has_a_shape_and_no_data() -> None:
    empty = samba.SambaTensor(shape=(2, 3), dtype=torch.bfloat16, name="x")
    assert (empty.shape, empty.dtype, empty.has_data) == ((2, 3), torch.bfloat16, False)
    filled = samba.SambaTensor(shape=(2,), materializer=lambda t: torch.ones(t.shape))
    assert filled.has_data
    assert filled.sum() == 2


def test_pickles_and_copies() -> None:
    named = samba.from_torch_tensor(torch.arange(3), name="x", batch_dim=0)
    for made in (pickle.loads(pickle.dumps(named)), copy.deepcopy(named)):
        assert (made.name, made.batch_dim, made.tolist()) == ("x", 0, [0, 1, 2])
        assert made.data_ptr() != named.data_ptr()


def test_host_gradients_pass_through() -> None:
    named = samba.randn(3, name="x", requires_grad=True)
    (named * named).sum().backward()
    assert named.grad is not None
    assert torch.allclose(named.grad, 2 * named.torch())
    named.grad = None
    assert named.grad is None


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_narrow_labels_and_mixed_floats_are_widened(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    ours = F.cross_entropy(samba.from_torch_tensor(logits), samba.from_torch(labels.to(dtype)))
    assert torch.equal(ours.torch(), F.cross_entropy(logits, labels))
    narrow = samba.from_torch_tensor(torch.ones(3, 2, dtype=torch.bfloat16))
    assert (logits @ narrow).dtype == torch.float32


def test_to_torch_takes_anything() -> None:
    plain = torch.ones(2)
    assert samba.to_torch(plain) is plain
    assert samba.to_torch(samba.from_torch(plain)) is plain
    assert samba.to_torch([samba.from_torch(plain)]) is plain
    assert samba.to_torch({"a": samba.from_torch(plain)})["a"] is plain


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(InputError, match="not from list"):
        samba.from_torch_tensor([1, 2], name="x")  # type: ignore[arg-type]


def test_created_tensors_are_named() -> None:
    samba.set_seed(1)
    first = samba.randn(2, 3, name="x", batch_dim=0)
    samba.set_seed(1)
    assert torch.equal(first.torch(), torch.randn(2, 3))
    assert samba.randint(3, 9, (50,), name="y", dtype=torch.int16).dtype == torch.int16
    assert samba.full((2,), 4.0, name="z").tolist() == [4.0, 4.0]
    assert [t.name for t in samba.from_named_dict({"a": torch.ones(1), "b": torch.ones(1)})] == [
        "a",
        "b",
    ]


def test_addmm_takes_a_transposed_matrix_and_no_out() -> None:
    bias, x, weight = torch.randn(3), torch.randn(2, 4), torch.randn(3, 4)
    ours = samba.addmm(bias, x, weight, is_transposed=True)
    assert torch.equal(ours, torch.addmm(bias, x, weight.t()))
    from batucada.errors import OptionError

    with pytest.raises(OptionError, match="out"):
        samba.abs(x, out=x)
