"""`SambaTensor`: a named torch tensor, or the result of a run that becomes one when it is read.

It is not a subclass of `torch.Tensor`: making one costs a fraction of a microsecond and runs
nothing of torch, for two are made in every step of a training loop.  torch functions accept it
through `__torch_function__`, and whatever a tensor can do it does through its tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from batucada.errors import InputError
from sambaflow.samba import device
from sambaflow.samba.dims import DimInfo as DimInfo
from sambaflow.samba.promotion import widened

# Methods of the class have the names of the built-in types.
Bool: TypeAlias = bool
Int: TypeAlias = int

# Attributes that may be set and are None until then.
_HINTS = ("host_memory", "mem_type", "named_dims", "sized_dims")


def _operator(name: str) -> Callable:
    method = getattr(Tensor, name)

    def apply(self: Any, *args: Any) -> Any:
        return wrap(method(*widened(method, [self._tensor, *unwrap(args)])))

    apply.__name__ = name
    return apply


class SambaTensor:
    """Shares memory with `torch_tensor`, so a later change of either shows in both.

    Without `torch_tensor` it holds a shape and a dtype and no data, or, with `materializer`,
    what `materializer(self)` returns.
    """

    __slots__ = ("__weakref__", "_region", "_result", "_tensor", "batch_dim", "name", *_HINTS)

    _tensor: Tensor
    _result: Any
    name: str
    batch_dim: Int | None
    host_memory: Bool | None
    mem_type: Any
    named_dims: Iterable[str | None] | None
    sized_dims: Iterable[str | None] | None

    def __init__(
        self,
        torch_tensor: Tensor | None = None,
        shape: Iterable[Int] | None = None,
        dtype: Any = None,
        name: str | None = None,
        batch_dim: Int | None = None,
        named_dims: Iterable[str | None] | None = None,
        sized_dims: Iterable[str | None] | None = None,
        materializer: Callable[[SambaTensor], Tensor] | None = None,
        is_complex: Bool | None = None,
        region_name: str | None = None,
    ) -> None:
        if torch_tensor is None:
            torch_tensor = torch.empty(tuple(shape or ()), dtype=dtype, device="meta")
        self._tensor = _host(torch_tensor)
        self.name = name or ""
        self.batch_dim = batch_dim
        self.named_dims = named_dims
        self.sized_dims = sized_dims
        if is_complex:
            raise InputError(f"tensor {self.name!r}: complex tensors are not supported")
        if region_name:
            self._region = region_name
        if materializer is not None:
            self._tensor = _host(materializer(self))

    def __getattr__(self, key: str) -> Any:
        # Reached for what is not set: the tensor of a result that nobody has read yet, a hint,
        # or an attribute of Tensor.
        if key == "_tensor":
            self._tensor = self._result.tensor()
            return self._tensor
        if key in _HINTS or key in ("_region", "_result"):
            return None
        if key.startswith(
            "__"
        ):  # protocols of Python, __deepcopy__ above all, are not the tensor's
            raise AttributeError(key)
        found = getattr(self._tensor, key)
        return _wrapping(found) if callable(found) else wrap(found)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        plain = [unwrap(arg) for arg in args]
        return wrap(func(*widened(func, plain), **unwrap(kwargs or {})))

    # --- the host's value ---
    def torch(self) -> Tensor:
        """The torch tensor it wraps, not a copy."""
        return self._tensor

    torch_tensor = torch

    @property
    def data(self) -> Tensor:
        return self._tensor.data

    @data.setter
    def data(self, value: Tensor | SambaTensor) -> None:
        self._tensor.data = unwrap(value)

    @property
    def grad(self) -> Tensor | None:
        """The host's gradient, as of a torch tensor; the device's is `sn_grad`."""
        return self._tensor.grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._tensor.grad = unwrap(value)

    @property
    def requires_grad(self) -> Bool:
        return self._tensor.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: Bool) -> None:
        self._tensor.requires_grad = value

    @property
    def has_data(self) -> Bool:
        """False for a tensor that is a shape and a dtype only."""
        return not self._tensor.is_meta

    def clear_data(self) -> None:
        self._tensor = self._tensor.detach().to("meta")

    # --- the device's value ---
    @property
    def sn_name(self) -> str:
        return self.name

    @sn_name.setter
    def sn_name(self, value: str) -> None:
        self.name = value

    @property
    def sn_region_name(self) -> str:
        return self._region or self.name

    @sn_region_name.setter
    def sn_region_name(self, value: str) -> None:
        self._region = value

    @property
    def sn_grad(self) -> SambaTensor:
        """The device's gradient of this input or output after a run that held BCKWD."""
        return from_torch_tensor(device.current().gradient_of(self), f"{self.name}__grad")

    @sn_grad.setter
    def sn_grad(self, value: Tensor | SambaTensor | None) -> None:
        """Start the next backward passes from `value` at this output; None: from the mean loss."""
        device.current().set_output_gradient(self.name, unwrap(value))

    @property
    def sn_data(self) -> SambaTensor:
        """A copy of the device's value of the symbol of this name."""
        return from_torch_tensor(device.current().value_of(self), self.name)

    def rdu(self) -> SambaTensor:
        """Copy the host's value to the device."""
        device.current().set_value(self, self._tensor)
        return self

    def cpu(self) -> SambaTensor:
        """Itself: a SambaTensor's own value is the host's."""
        return self

    cpu_ = cpu

    # --- what keeps the name and the batch dimension ---
    def _like(self, tensor: Tensor) -> Any:
        return from_torch_tensor(tensor, self.name, self.batch_dim)

    def to(self, *args: Any, **kwargs: Any) -> SambaTensor:
        return self._like(self._tensor.to(*unwrap(args), **unwrap(kwargs)))

    def bfloat16(self) -> SambaTensor:
        return self._like(self._tensor.bfloat16())

    def half(self) -> SambaTensor:
        return self._like(self._tensor.half())

    def float(self) -> SambaTensor:
        return self._like(self._tensor.float())

    def double(self) -> SambaTensor:
        return self._like(self._tensor.double())

    def bool(self) -> SambaTensor:
        return self._like(self._tensor.bool())

    def int(self) -> SambaTensor:
        return self._like(self._tensor.int())

    def short(self) -> SambaTensor:
        return self._like(self._tensor.short())

    def long(self) -> SambaTensor:
        return self._like(self._tensor.long())

    def detach(self) -> SambaTensor:
        return self._like(self._tensor.detach())

    def clone(self) -> SambaTensor:
        return self._like(self._tensor.clone())

    def contiguous(self) -> SambaTensor:
        return self._like(self._tensor.contiguous())

    def requires_grad_(self, requires_grad: Any = True) -> SambaTensor:
        self._tensor.requires_grad_(requires_grad)
        return self

    # --- elementwise operators and the matrix product ---
    __add__ = _operator("__add__")
    __radd__ = _operator("__radd__")
    __iadd__ = _operator("__iadd__")
    __sub__ = _operator("__sub__")
    __rsub__ = _operator("__rsub__")
    __isub__ = _operator("__isub__")
    __mul__ = _operator("__mul__")
    __rmul__ = _operator("__rmul__")
    __imul__ = _operator("__imul__")
    __truediv__ = _operator("__truediv__")
    __rtruediv__ = _operator("__rtruediv__")
    __itruediv__ = _operator("__itruediv__")
    __floordiv__ = _operator("__floordiv__")
    __rfloordiv__ = _operator("__rfloordiv__")
    __mod__ = _operator("__mod__")
    __rmod__ = _operator("__rmod__")
    __pow__ = _operator("__pow__")
    __rpow__ = _operator("__rpow__")
    __matmul__ = _operator("__matmul__")
    __rmatmul__ = _operator("__rmatmul__")
    __neg__ = _operator("__neg__")
    __pos__ = _operator("__pos__")
    __abs__ = _operator("__abs__")
    __invert__ = _operator("__invert__")
    __and__ = _operator("__and__")
    __or__ = _operator("__or__")
    __xor__ = _operator("__xor__")
    __lt__ = _operator("__lt__")
    __le__ = _operator("__le__")
    __gt__ = _operator("__gt__")
    __ge__ = _operator("__ge__")
    __eq__: Any = _operator("__eq__")
    __ne__: Any = _operator("__ne__")

    # --- Python's protocols; an instance's __getattr__ is not asked for these ---
    def __repr__(self) -> str:
        return f"SambaTensor({self._tensor!r}, name={self.name!r}, batch_dim={self.batch_dim})"

    def __reduce__(self) -> tuple:
        return from_torch_tensor, (self._tensor, self.name, self.batch_dim)

    def __hash__(self) -> Any:
        return id(self)

    def __len__(self) -> Any:
        return len(self._tensor)

    def __iter__(self) -> Iterator[Any]:
        return (wrap(row) for row in self._tensor)

    def __getitem__(self, index: Any) -> Any:
        return wrap(self._tensor[unwrap(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._tensor[unwrap(index)] = unwrap(value)

    def __bool__(self) -> Any:
        return bool(self._tensor)

    def __int__(self) -> Any:
        return int(self._tensor)

    def __index__(self) -> Any:
        return self._tensor.__index__()

    def __float__(self) -> Any:
        return float(self._tensor)

    def __format__(self, spec: str) -> str:
        return format(self._tensor, spec)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        array = self._tensor.detach().numpy()
        return array if dtype is None else array.astype(dtype)


def from_torch_tensor(
    tensor: Tensor | SambaTensor,
    name: str | None = "",
    batch_dim: int | None = None,
    sized_dims: Iterable[str | None] | None = None,
    named_dims: Iterable[str | None] | None = None,
) -> SambaTensor:
    """`tensor` under a name, in the same memory."""
    made = _new(SambaTensor)
    made._tensor = tensor if type(tensor) is Tensor else _host(tensor)
    made.name = name or ""
    made.batch_dim = batch_dim
    if sized_dims is not None:
        made.sized_dims = sized_dims
    if named_dims is not None:
        made.named_dims = named_dims
    return made


def from_result(result: Any) -> SambaTensor:
    """The output of a run, a `batucada` Result, fetched when it is first read."""
    made = _new(SambaTensor)
    made._result = result
    made.name = result.name
    made.batch_dim = None
    return made


_new = object.__new__


def to_torch(value: Any) -> Any:
    """The torch tensor of a SambaTensor; a torch tensor as it is; lists, tuples and dicts by item.

    A sequence of one tensor gives that tensor: it is what a run of a model with one output returns.
    """
    plain = unwrap(value)
    if isinstance(plain, list | tuple) and len(plain) == 1:
        return plain[0]
    return plain


def _host(value: Any) -> Tensor:
    if isinstance(value, SambaTensor):
        return value._tensor
    if isinstance(value, Tensor):
        return value
    raise InputError(f"a SambaTensor is made from a Tensor, not from {type(value).__name__}")


def unwrap(value: Any) -> Any:
    """`value` with the torch tensor in place of every SambaTensor."""
    if isinstance(value, SambaTensor):
        return value._tensor
    if type(value) in (list, tuple):
        return type(value)(unwrap(item) for item in value)
    if type(value) is dict:
        return {key: unwrap(item) for key, item in value.items()}
    return value


def wrap(value: Any) -> Any:
    """`value` with a SambaTensor in place of every torch tensor, except while tracing."""
    if isinstance(value, Tensor):
        return value if _plain_results else from_torch_tensor(value)
    if isinstance(value, tuple) and any(isinstance(item, Tensor) for item in value):
        wrapped = [wrap(item) for item in value]
        return type(value)(*wrapped) if hasattr(value, "_fields") else tuple(wrapped)
    if type(value) is list:
        return [wrap(item) for item in value]
    return value


def _wrapping(method: Callable) -> Callable:
    return lambda *args, **kwargs: wrap(method(*unwrap(args), **unwrap(kwargs)))


_plain_results = False


@contextlib.contextmanager
def plain_results() -> Iterator[None]:
    """Functions of SambaTensors return torch tensors inside: a trace must see no other class."""
    global _plain_results
    before, _plain_results = _plain_results, True
    try:
        yield
    finally:
        _plain_results = before
