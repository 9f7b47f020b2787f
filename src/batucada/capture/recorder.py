"""Records the aten operators of a run on tensors without data, as nodes of the graph.

A dispatch mode below autograd sees every operator of forward and backward once.  What has a
translation in `ops` becomes nodes; what PyTorch can decompose is decomposed; the rest is reported,
all of it at once.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from batucada.capture.aliases import Aliases, SharedElementsError
from batucada.capture.clock import Clock
from batucada.capture.dtypes import dtype_of, torch_dtype, type_of
from batucada.capture.findings import Findings
from batucada.capture.folding import folded, has_fixed_results, positions, value_of
from batucada.capture.guards import value_that_passes
from batucada.capture.hosting import (
    WHERE_TENSORS_ARE,
    changed_tensors,
    host_nodes,
    results_without_data,
    why_not_on_host,
)
from batucada.capture.leaves import leaves, mapped
from batucada.capture.naming import OutputNames
from batucada.capture.operands import adjusted, in_memory_order, written_to_outs
from batucada.capture.operator import (
    Operator,
    concerns_complex,
    functional_form,
    operator_of,
    without_data,
)
from batucada.capture.places import frames_here, user_line
from batucada.capture.scalars import called_with_tensors, can_be_number, has_numbers, number_of
from batucada.errors import CaptureError
from batucada.ir.graph import Node, Section, input_node
from batucada.ops import TypeRuleError, origin
from batucada.ops.create import full
from batucada.ops.elementwise import cast
from batucada.ops.random import Generator

if TYPE_CHECKING:
    from batucada.capture.complex_numbers import ComplexNumbers

_NUMBERS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class Recorder(TorchDispatchMode):
    """While active, each operator on a tensor without data adds to the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.section: Section = "FWD"
        self.constants: dict[int, tuple[Node, torch.Tensor]] = {}
        self.unusable: dict[int, str] = {}  # tensor that no operator may take -> why
        self.names = OutputNames()
        self._aliases = Aliases(self._again, self.standing_for)
        self._changed: dict[int, str] = {}  # owner of memory -> where it was last changed
        self._forward_lines: dict[int, str] = {}  # autograd sequence number -> user's line
        self._reads_numbers = False
        self.findings = Findings()
        self.clock = Clock()
        self.generator = Generator(lambda: self.names.module)

    @functools.cached_property
    def _complex(self) -> ComplexNumbers:
        from batucada.capture.complex_numbers import ComplexNumbers  # few models have any

        return ComplexNumbers(self._again, self.standing_for, self.node_of, self._aliases)

    def let_go(self) -> None:
        """At the end: what refers to this object would keep the capture until the next collection
        of cycles.
        """
        del self._aliases, self.generator
        vars(self).pop("_complex", None)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's hook: the default wraps the mode so that using it imports torch._dynamo, two
        seconds' work.
        """
        return False

    def own(self, tensor: torch.Tensor, node: Node) -> None:
        (self._complex if tensor.is_complex() else self._aliases).own(tensor, node)

    def bind(self, tensor: torch.Tensor, node: Node) -> None:
        if tensor.is_complex():
            self._complex.own(tensor, node)
        else:
            self._aliases.bind(tensor, node)

    def node_of(self, tensor: torch.Tensor) -> Node:
        """The node that computes `tensor`; a tensor with data that the model closes over is a
        constant.  Of complex numbers its last dimension are the parts.
        """
        if tensor.is_complex():
            tensor = self._complex.whole(tensor)
        if tensor not in self._aliases:
            if tensor.is_nested or tensor.layout != torch.strided:
                kind = "nested" if tensor.is_nested else "sparse"
                raise CaptureError(
                    f"{self._here()}: {kind} tensors are not supported; use a padded tensor and a"
                    " mask, or a dense one"
                )
            if tensor.device.type == "meta" and tensor.numel():
                why = self.unusable.get(id(tensor), "a tensor made outside the capture is used")
                raise CaptureError(f"{self._here()}: {why}")
            self.bind(tensor, self._constant(tensor))
        return self._aliases.node_of(tensor)

    def _constant(self, tensor: torch.Tensor) -> Node:
        if not tensor.numel():
            return full(tuple(tensor.shape), 0, dtype_of(tensor.dtype))
        node = input_node(f"constant{len(self.constants)}", type_of(tensor), "constant")
        self.constants[id(tensor)] = (node, tensor)
        return node

    def rate(self, p: float) -> torch.Tensor:
        """A drop rate, whose value `p` is that of the compilation."""
        return self.standing_for(self.generator.rate(p))

    def changed_at(self, tensor: torch.Tensor) -> str:
        memory = self._complex.whole(tensor) if tensor.is_complex() else tensor
        return self._changed.get(id(memory), "?")

    def _here(self) -> str:
        """The user's line; in the backward pass that of the forward operator which is
        differentiated.
        """
        if self.section == "FWD":
            return user_line(frames_here())
        node = torch._C._current_autograd_node()
        number = node._sequence_nr() if node is not None else -1  # type: ignore[attr-defined]
        return self._forward_lines.get(number, "?")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "profiler":  # the user's marks
            return func(*args, **(kwargs or {}))
        with self.clock.compiler():
            where = self._here()
            if self.section == "FWD":
                number = torch._C._autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
                self._forward_lines.setdefault(number, where)
            kwargs = kwargs or {}
            if self._reads_numbers and has_numbers([*args, *kwargs.values()]):
                return called_with_tensors(func, args, kwargs, self._again, where)
            return self._record(func, args, kwargs, where)

    def _record(self, func: Any, args: Any, kwargs: dict[str, Any], where: str) -> Any:
        operator = operator_of(func)
        if operator.reads_values and not has_fixed_results(func, args, kwargs):
            return self._read(func, args, kwargs, where)
        if operator.packet == "aten.copy_" and args[0].device.type != "meta":
            raise CaptureError(f"{where}: a tensor outside the model is changed in place")
        taken = adjusted(operator, args, kwargs, self._again, self.value_of)
        out = self._dispatch(operator, *taken, where)
        self.names.produced(operator.base, () if operator.changes else args, out)
        return out

    def _read(self, func: Any, args: Any, kwargs: dict[str, Any], where: str) -> Any:
        """The result of an operator that looks at values, where these are known already."""
        if func is torch.ops.aten.masked_select.default and args[0].shape == args[1].shape:
            func, args = torch.ops.aten.index.Tensor, (args[0], [args[1]])
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], positions(args[1], self.value_of))
            if has_fixed_results(func, args, kwargs):
                with self:
                    return func(*args)
        known, result = folded(func, args, kwargs, self.value_of)
        if known:
            return mapped(self._held, result)
        if func not in _NUMBERS:
            raise CaptureError(
                f"{where}: the shape of the result of {func} depends on values; a compiled graph is"
                " static. Use torch.where with a mask, or make the result on the host"
            )
        answer = value_that_passes(sys._getframe(3))
        if answer is not None:
            return answer
        if func is torch.ops.aten.equal.default or not can_be_number(args[0]):
            self._refuse_reading()
            return torch.ones((), dtype=args[0].dtype).item()
        self._reads_numbers = True
        return self._again(number_of, args[0], self._refuse_reading)

    def _refuse_reading(self) -> None:
        where = user_line(frames_here())
        finding = (
            f"{where}: the program needs a tensor's value (bool(), int(), float(), an if on it); a"
            " compiled graph is static. Use torch.where, or compute the value on the host"
        )
        if not self.findings.refuse(finding):  # a loop on such a value might never end
            raise CaptureError(finding)

    def _held(self, value: Any) -> Any:
        return self._again(torch.clone, value) if isinstance(value, torch.Tensor) else value

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What `tensor` holds, None where that depends on an input, a weight or a state."""
        found = value_of(self.node_of(tensor), dict(self.constants.values()))
        if found is None or not tensor.is_complex():
            return found
        return torch.view_as_complex(found)

    def _dispatch(self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str) -> Any:
        made = self._by_others(operator, args, kwargs, where)
        if made is not NotImplemented:
            return made
        func = operator.func
        if func is torch.ops.aten.as_strided.default and args[0].device.type == "meta":
            self.node_of(args[0])
            args = (self._aliases.owner(args[0]), *args[1:])  # strides are of the memory
        without_kernel = self._change_by_functional if operator.changes else self._call_host
        if operator.translation is None:
            return without_kernel(operator, args, kwargs, where)
        try:
            nodes = self._translate(operator, args, kwargs, where)
        except TypeRuleError as error:
            return without_kernel(operator, args, kwargs, where, str(error))
        if not operator.changes:
            return self._made(operator, args, kwargs, nodes)
        if torch.Tag.inplace_view in func.tags:
            self._turn(operator, args, kwargs, nodes)
        else:
            self._change(args[0], nodes, where)
        return args[0]

    def _by_others(self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str) -> Any:
        """By other operators; NotImplemented where none hold: some do for some shapes only."""
        made = NotImplemented
        if operator.outs:
            made = written_to_outs(operator, args, kwargs, self._again)
        elif operator.base.endswith("empty_strided"):
            made = in_memory_order(args, kwargs, self._again)
        if made is not NotImplemented:
            return made
        if concerns_complex(operator, args, kwargs):
            return self._dispatch_complex(operator, args, kwargs, where)
        if operator.translation is None and operator.decomposes:
            return self._decomposed(operator.func, args, kwargs)
        return NotImplemented

    def _dispatch_complex(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str
    ) -> Any:
        made = self._complex.call(operator, args, kwargs)
        if made is NotImplemented and operator.decomposes:
            made = self._decomposed(operator.func, args, kwargs)
        if made is NotImplemented:
            why = "it has no form for complex numbers"  # where PyTorch cannot run it, either
            return self._call_host(operator, args, kwargs, where, why)
        return made

    def _decomposed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """By PyTorch's table, else by the kernel that is made of other operators."""
        decompose = decomposition_table.get(func, func.decompose)
        with self, self.clock.pytorch():
            return decompose(*args, **kwargs)

    def _made(self, operator: Operator, args: Any, kwargs: dict[str, Any], nodes: Any) -> Any:
        """The results of an operator that is `nodes` in the graph."""
        if operator.is_view:
            out = self._run(operator.func, args, kwargs)
            self._bind_view(operator, out, nodes)
            self._aliases.bind_view(out, operator.func, args, kwargs)
            return out
        if operator.also_changes:
            nodes, news = nodes[: -len(operator.also_changes)], nodes[-len(operator.also_changes) :]
            for position, new in zip(operator.also_changes, news, strict=True):
                if new is not None:
                    changed, value = args[position], self.standing_for(new)
                    self._again(torch.ops.aten.copy_.default, changed, value)
        return mapped(self.standing_for, nodes)

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """PyTorch's own result, without data."""
        args, kwargs = mapped(without_data, args), mapped(without_data, kwargs)
        with self.clock.pytorch():
            return func(*args, **kwargs)

    def _change_by_functional(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str, why: str = ""
    ) -> Any:
        """An operator that changes its first argument, by the one that returns a new tensor."""
        new = functional_form(operator)
        if new is None:
            return self._call_host(operator, args, kwargs, where, why)
        with self:
            result = new(*args, **kwargs)
        self._change(args[0], self.node_of(result), where)
        return args[0]

    def _call_host(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str, why: str = ""
    ) -> Any:
        """An operator without a kernel, or with none for these arguments: PyTorch will run it."""
        func = operator.func
        impossible = why_not_on_host(func, args, kwargs)
        if impossible:
            return self._report(operator, args, kwargs, where, why or impossible)
        with self.clock.pytorch():
            out = results_without_data(func, args, kwargs, where)
        self.findings.hosted.append((operator.name, where))
        with origin(where, self.section):
            found = host_nodes(func, args, kwargs, out, self.node_of, self.generator, where)
        changed = {id(tensor) for tensor in changed_tensors(func, args, kwargs)}
        for tensor, node in found:
            if id(tensor) in changed:
                self._change(tensor, node, where)
            else:
                self.bind(tensor, node)
        if operator.is_view:
            self._aliases.bind_view(out, func, args, kwargs)
        return out

    def _report(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], where: str, why: str = ""
    ) -> Any:
        """Go on behind an operator that cannot be compiled, so that all of them are reported at
        once.
        """
        self.findings.refuse(f"{operator.name} at {where}{why and ': '}{why}")
        out = self._run(operator.func, args, kwargs)
        for tensor in leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.own(tensor, input_node("unsupported", type_of(tensor)))
        return out

    def _translate(self, operator: Operator, args: Any, kwargs: Any, where: str) -> Any:
        def plain(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return self.node_of(value)
            return dtype_of(value) if isinstance(value, torch.dtype) else value

        options = {k: plain(v) for k, v in kwargs.items() if k not in WHERE_TENSORS_ARE}
        assert operator.translation is not None
        with origin(where, self.section):
            return operator.translation(*mapped(plain, args), **options)

    def _bind_view(self, operator: Operator, out: Any, nodes: Any) -> None:
        for tensor, node in zip(leaves(out), leaves(nodes), strict=True):
            if node.type != type_of(tensor):
                raise CaptureError(
                    f"{node.src}: {operator.name} gives {type_of(tensor)} in PyTorch"
                    f" and {node.type} in the compiler"
                )
            self.bind(tensor, node)

    def _change(self, tensor: torch.Tensor, node: Node, where: str) -> None:
        """`tensor` was changed in place, and with it what it shares memory with."""
        self.node_of(tensor)
        with origin(where, self.section):
            try:
                self._aliases.change(tensor, cast(node, dtype_of(tensor.dtype)))
            except SharedElementsError:
                raise CaptureError(
                    f"{where}: an expanded tensor is changed in place, whose elements share memory;"
                    " change a clone of it"
                ) from None
        self._changed[id(self._aliases.owner(tensor))] = where

    def _turn(self, operator: Operator, args: Any, kwargs: dict[str, Any], node: Node) -> None:
        """`t_`, `squeeze_` and their like: the tensor sees its memory in another way; with more or
        fewer elements after `resize_`, it has memory of its own.
        """
        tensor = args[0]
        before = self.standing_for(self.node_of(tensor))
        self._run(operator.func, args, kwargs)
        if tensor.numel() != before.numel():
            self.own(tensor, node)
            return
        func = functional_form(operator)
        if operator.base.startswith("resize"):
            func, args, kwargs = torch.ops.aten.view.default, (tensor, list(tensor.shape)), {}
        self._aliases.turn(tensor, before, func, args[1:], kwargs)
        self.bind(tensor, node)

    def _again(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        with self:
            return func(*args, **kwargs)

    def standing_for(self, node: Any) -> Any:
        """A tensor without data of the node's type; other values are themselves."""
        if not isinstance(node, Node):
            return node
        dtype = torch_dtype(node.type.dtype)
        tensor = torch.empty(node.type.shape, dtype=dtype, device="meta")
        self.bind(tensor, node)
        return tensor
