"""Complex tensors while a model is captured: the graph knows real ones only.

Each complex tensor is two real ones of its shape, values of the graph like any other.  Its views
are their views, so that changes in place go where they go in PyTorch.  A tensor that comes from
outside or leaves, and `view_as_real`, is one real tensor with a last dimension of 2: parts and
whole are then views of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from batucada.capture import fourier as fourier
from batucada.capture.aliases import Aliases
from batucada.capture.complex_rules import RULES, Pair, tensors
from batucada.capture.leaves import leaves, mapped
from batucada.capture.operator import Operator, functional_form, is_complex, without_data
from batucada.capture.zeros import first_zeros, is_zero
from batucada.errors import CaptureError
from batucada.ir.graph import Node

aten = torch.ops.aten
Tensor = torch.Tensor

_REAL_ONLY = frozenset({"aten.ones", "aten.ones_like", "aten.new_ones", "aten.eye"})
_PARTWISE = frozenset(
    f"aten.{name}"
    for name in (
        "_unsafe_view", "cat", "clone", "constant_pad_nd", "cumsum", "diagonal_backward",
        "diagonal_scatter", "empty", "empty_like", "empty_strided", "fill", "flip", "full",
        "full_like", "gather", "index", "index_add", "index_copy", "index_fill", "index_put",
        "index_select", "masked_fill", "masked_scatter", "mean", "nan_to_num", "neg", "new_empty",
        "new_empty_strided", "new_full", "new_zeros", "reflection_pad1d", "repeat",
        "replication_pad1d", "roll", "scatter", "scatter_add", "select_backward",
        "select_scatter", "slice_backward", "slice_scatter", "stack", "sum", "trace", "tril",
        "triu", "unfold_backward", "where", "zeros", "zeros_like", "_reshape_copy",
        "lift_fresh_copy", "reflection_pad1d_backward", "resolve_conj", "resolve_neg",
        "scalar_tensor", "zero",
    )
)  # fmt: skip
"""The same operator of the real parts and of the imaginary ones."""


class ComplexNumbers:
    """The parts of every complex tensor.  `run` calls a function so that operators in it are
    recorded, `standing_for` gives a real tensor without data for a node, `node_of` is of real
    tensors.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        standing_for: Callable[[Node], Tensor],
        node_of: Callable[[Tensor], Node],
        aliases: Aliases,
    ) -> None:
        self._run = run
        self._standing_for = standing_for
        self._node_of = node_of
        self._aliases = aliases
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}
        self._alive: list[Tensor] = []  # an id stays unique while its tensor lives

    def own(self, z: Tensor, node: Node) -> None:
        """`z` is kept as `node`, whose last dimension are the parts."""
        whole = self._standing_for(node)
        self._aliases.own(whole, node)
        self._keep(z, *self._halves(whole))

    def whole(self, z: Tensor) -> Tensor:
        """The real tensor with a last dimension of 2 that shares the memory of `z`."""
        re, im = self._parts_of(z)
        found = self._aliases.whole(re, im)
        if found is None:
            found = self._run(torch.stack, [re, im], -1)
            self._aliases.bind_joined(found, re, im)
        return found

    def call(self, operator: Operator, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operator's result; NotImplemented where there is no form of it in real numbers."""
        if operator.changes:
            return self._changed(operator, args, kwargs)
        func, name = operator.func, operator.packet
        special = ComplexNumbers._view_dtype if func is aten.view.dtype else _VIEWS.get(name)
        if special is not None:
            return special(self, *args, **kwargs)
        if operator.is_view:
            return self._viewed(func, args, kwargs)
        if name in RULES:
            if name in fourier.TRANSFORMS:
                kwargs = {**kwargs, "ends": self._first_zeros(args[0], args[1])}
            given = mapped(self._operand, args), mapped(self._operand, kwargs)
            result = self._run(RULES[name], *given[0], **given[1])
        elif name in _REAL_ONLY:
            kwargs = {**kwargs, "dtype": _real_dtype(kwargs.get("dtype") or args[0].dtype)}
            result = Pair(self._run(func, *mapped(self._real_part, args), **kwargs), 0)
        elif name in _PARTWISE:
            result = Pair(*(self._partwise(func, args, kwargs, part) for part in (0, 1)))
        else:
            return NotImplemented
        return mapped(self._result, result)

    # ---- parts

    def _keep(self, z: Tensor, re: Tensor, im: Tensor) -> Tensor:
        self._alive.append(z)
        self._parts[id(z)] = re, im
        return z

    def _halves(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        re, im = (self._run(aten.select.int, whole, -1, index) for index in (0, 1))
        return re, im

    def _parts_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if id(z) not in self._parts:
            if z.device.type == "meta" and z.numel():
                raise CaptureError("a tensor made outside the capture is used")
            re, im = torch.view_as_real(z.detach().resolve_conj()).unbind(-1)
            self._keep(z, re.contiguous(), im.contiguous())
        return self._parts[id(z)]

    def _operand(self, value: Any) -> Any:
        """As the rules take it: zeros are known as such."""
        if isinstance(value, complex):
            return Pair(value.real, value.imag)
        if not is_complex(value) or isinstance(value, torch.dtype):
            return value
        re, im = self._parts_of(value)
        if self._is_zero(im):
            return Pair(re, 0)
        return Pair(0 if self._is_zero(re) else re, im)

    def _is_zero(self, part: Tensor) -> bool:
        return part.device.type == "meta" and is_zero(self._node_of(part))

    def _first_zeros(self, x: Tensor, dims: Iterable[int]) -> list[int]:
        """Along each of `dims`, from where on all elements are 0."""
        parts = [self._node_of(p) for p in (self._parts_of(x) if x.is_complex() else (x,))]
        return [max(first_zeros(part, dim) for part in parts) for dim in dims]

    def _result(self, value: Any) -> Any:
        """Tensors of their own: rules may hand on what they were given."""
        if isinstance(value, Pair):
            return self._made(*self._run(tensors, value))
        if isinstance(value, Tensor):
            return self._standing_for(self._node_of(value))
        return value

    def _made(self, re: Tensor, im: Tensor) -> Tensor:
        if re.dtype not in (torch.float32, torch.float64):
            raise CaptureError(
                f"complex numbers of two {re.dtype} are not supported; cast to float32 first"
            )
        z = torch.empty(re.shape, dtype=re.dtype.to_complex(), device="meta")
        own = (self._standing_for(self._node_of(part)) for part in (re, im))
        return self._keep(z, *own)

    # ---- the same of both parts

    def _real_part(self, value: Any) -> Any:
        return (
            self._parts_of(value)[0] if isinstance(value, Tensor) and value.is_complex() else value
        )

    def _partwise(self, func: Any, args: Any, kwargs: dict[str, Any], part: int) -> Any:
        """Of a real number or tensor among the values, the imaginary part is 0."""

        def of(value: Any) -> Any:
            if isinstance(value, complex):
                return (value.real, value.imag)[part]
            if isinstance(value, torch.dtype):
                return _real_dtype(value)
            if not isinstance(value, Tensor):
                return value
            if value.is_complex():
                return self._parts_of(value)[part]
            if part and value.is_floating_point():
                return self._run(torch.zeros_like, value)
            return value

        def given(value: Any, kind: str) -> Any:
            is_real_number = part and kind == "number" and not isinstance(value, complex)
            return 0 if is_real_number else mapped(of, value)

        kinds = {a.name: str(a.real_type).lower() for a in func._schema.arguments}
        positional = [given(v, k) for v, k in zip(args, kinds.values(), strict=False)]
        return self._run(func, *positional, **{k: given(v, kinds[k]) for k, v in kwargs.items()})

    # ---- views and changes in place

    def _viewed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        z = args[0]
        if not (isinstance(z, Tensor) and z.is_complex()) or func._can_decompose():
            return NotImplemented
        found = [leaves(self._run(func, part, *args[1:], **kwargs)) for part in self._parts_of(z)]
        out = func(without_data(z), *args[1:], **kwargs)
        for view, re, im in zip(leaves(out), *found, strict=True):
            self._keep(view, re, im)
        return out

    def _as_strided(self, z: Tensor, size: Any, stride: Any, offset: int | None = None) -> Any:
        """Strides are of the memory, where the parts lie apart or take turns."""
        re, im = self._parts_of(z)
        start = z.storage_offset() if offset is None else offset
        out = aten.as_strided.default(without_data(z), size, stride, start)
        memory = self._aliases.owner(re)
        if memory is not self._aliases.owner(im):
            parts = [self._run(aten.as_strided.default, p, size, stride, start) for p in (re, im)]
        else:
            twice = [2 * step for step in stride]
            parts = [
                self._run(aten.as_strided.default, memory, size, twice, 2 * start + index)
                for index in (0, 1)
            ]
        return self._keep(out, *parts)

    def _view_as_real(self, z: Tensor) -> Tensor:
        return self._run(aten.alias.default, self.whole(z))

    def _view_as_complex(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.float32, torch.float64):
            raise CaptureError(
                f"complex numbers of two {x.dtype} are not supported; cast to float32 first"
            )
        return self._keep(aten.view_as_complex.default(without_data(x)), *self._halves(x))

    def _conj(self, z: Any) -> Tensor:
        """PyTorch's is a view of the same memory, read with another sign."""
        if not isinstance(z, Tensor):
            return self._result(Pair(z.real, -z.imag))
        re, im = self._parts_of(z)
        negative = self._run(torch.neg, im)
        self._aliases.bind_negative(negative, im)
        out = torch.empty_strided(z.shape, z.stride(), dtype=z.dtype, device="meta")
        return self._keep(out, self._run(aten.alias.default, re), negative)

    def _view_dtype(self, x: Tensor, dtype: torch.dtype) -> Any:
        """Complex numbers as twice as many real ones, or these as complex ones."""
        if x.is_complex() and dtype == x.dtype.to_real():
            *rest, last = x.shape
            return self._run(aten.view.default, self.whole(x), [*rest, 2 * last])
        if dtype.is_complex and x.dtype == dtype.to_real():
            *rest, last = x.shape
            pairs = self._run(aten.view.default, x, [*rest, last // 2, 2])
            return self._view_as_complex(pairs)
        return NotImplemented

    def _changed(self, operator: Operator, args: Any, kwargs: dict[str, Any]) -> Any:
        target = args[0]
        if torch.Tag.inplace_view in operator.func.tags:
            return self._reshaped(operator, args, kwargs)
        if operator.func is aten.copy_.default:
            new = self._run(aten._to_copy.default, args[1], dtype=target.dtype)
        else:
            form = functional_form(operator)
            if form is None:
                return NotImplemented
            new = self._run(form, *args, **kwargs)
        self.assign(target, new)
        return target

    def assign(self, target: Tensor, new: Tensor) -> None:
        """The values of `new`, broadcast, into the memory of `target`."""
        if not target.is_complex():
            self._run(target.copy_, new)
            return
        for old, value in zip(self._parts_of(target), self._parts_of(new), strict=True):
            self._run(old.copy_, value)

    def _reshaped(self, operator: Operator, args: Any, kwargs: dict[str, Any]) -> Any:
        """The tensor itself becomes another view of its memory."""
        form = functional_form(operator)
        if form is None or not args[0].is_complex():
            return NotImplemented
        parts = [self._run(form, part, *args[1:], **kwargs) for part in self._parts_of(args[0])]
        operator.func(*args, **kwargs)
        self._parts[id(args[0])] = parts[0], parts[1]
        return args[0]


_VIEWS: dict[str, Callable[..., Any]] = {
    "aten.as_strided": ComplexNumbers._as_strided,
    "aten.view_as_real": ComplexNumbers._view_as_real,
    "aten.view_as_complex": ComplexNumbers._view_as_complex,
    "aten._conj": ComplexNumbers._conj,
}


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype
