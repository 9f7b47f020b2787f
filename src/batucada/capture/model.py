"""Captures a model: runs its forward, and the backward that autograd finds, on tensors without
data.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.jit._fuser import optimized_execution
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from batucada.capture import attention as attention
from batucada.capture import ctc as ctc
from batucada.capture import lookups as lookups
from batucada.capture import quantisation as quantisation
from batucada.capture import sampling as sampling
from batucada.capture.checkpoint import draws_again
from batucada.capture.control_flow import written_out
from batucada.capture.dtypes import type_of
from batucada.capture.findings import Findings
from batucada.capture.flexible import flexible_attention
from batucada.capture.inputs import NamedTensor, name_inputs
from batucada.capture.methods import recordable_methods
from batucada.capture.naming import input_name, model_name, symbol_name
from batucada.capture.places import user_line
from batucada.capture.randomness import run_time_rates
from batucada.capture.recorder import Recorder
from batucada.capture.restoring import restored
from batucada.capture.sequences import packed_sequences
from batucada.errors import CaptureError, InputError
from batucada.ir.graph import Graph, Node, Output, graph_of, input_node, postorder
from batucada.ops.random import RUN, drawing


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """A tensor that the model's forward returns; outputs are numbered in the order of return."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Captured:
    """The joint graph and what its symbols stand for on the host."""

    graph: Graph
    training: bool
    outputs: tuple[OutputSpec, ...]
    paths: dict[str, str]  # parameter and buffer symbol -> path in the module
    constants: dict[str, torch.Tensor]  # constant symbol -> the tensor the model closes over
    start_gradients: dict[str, float]  # tangent symbol -> the value it is filled with by default
    rates: dict[str, float]  # hyperparameter of a dropout -> its rate at compilation
    complex: tuple[str, ...]  # symbols whose last dimension are the parts of complex numbers
    pytorch_s: float  # seconds of the capture that PyTorch took, see `Clock`


def capture(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool,
    loss_indices: Sequence[int] | None = None,
) -> Captured:
    """One graph of `model(*args, **kwargs)` and, when `training`, of every gradient.

    The arguments are as in `name_inputs`; only shapes and dtypes of the tensors matter.
    CaptureError names the user's line.
    """
    return _Session(model, training).run(args, kwargs, loss_indices)


@dataclass(frozen=True, slots=True)
class Examined:
    """The joint graph, or None and what is `refused`, a line each; `hosted` is the operator and the
    user's line of each call that PyTorch would make."""

    graph: Graph | None
    refused: tuple[str, ...]
    hosted: tuple[tuple[str, str], ...]


def examine(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *, training: bool
) -> Examined:
    """As `capture`, with what stands in its way in place of an error."""
    session = _Session(model, training)
    graph: Graph | None = None
    try:
        graph = session.run(args, kwargs, None).graph
    except CaptureError as error:
        if not session.recorder.findings.refused:
            session.recorder.findings.refuse(str(error))
    findings = session.recorder.findings
    return Examined(graph, tuple(findings.refused), tuple(findings.hosted))


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """`torch.compiler.is_compiling()` is true, as under torch.compile: libraries then leave out
    shortcuts that look at values, and caches of tensors.  What the user compiled runs as written,
    and TorchScript as in its first call, not differently from the second on.
    """
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    used = "torch._dynamo" in sys.modules  # an import of a second
    try:
        with (
            optimized_execution(False),
            torch.compiler.set_stance("force_eager") if used else contextlib.nullcontext(),
        ):
            yield
    finally:
        torch.compiler._is_compiling_flag = before


@contextlib.contextmanager
def _user_errors(model: nn.Module, findings: Findings) -> Iterator[None]:
    """An exception of the user's forward becomes a CaptureError with the user's line: that of
    `def forward` where the call does not fit it.  Behind what was refused already it may be a
    consequence: then that is what is said."""
    try:
        yield
    except InputError:
        raise
    except CaptureError as error:
        if findings.refused:
            findings.refuse(str(error))
            findings.raise_refused()
        raise
    except Exception as error:
        findings.raise_refused()
        frames = traceback.extract_tb(error.__traceback__)
        called = inspect.unwrap(type(model).forward).__code__
        places = [*reversed([(f.filename, f.lineno or 0) for f in frames])]
        where = user_line([*places, (called.co_filename, called.co_firstlineno)])
        raise CaptureError(
            f"{where}: the model's forward fails: {type(error).__name__}: {error}"
        ) from error


class _Session:
    def __init__(self, model: nn.Module, training: bool) -> None:
        self.model = model
        self.training = training
        self.recorder = Recorder()
        self.inputs: dict[str, Node] = {}
        self.paths: dict[str, str] = {}
        self.sources: dict[str, torch.Tensor] = {}  # symbol -> tensor without data
        self.outputs: list[Output] = []
        self.specs: list[OutputSpec] = []
        self.start_gradients: dict[str, float] = {}

    def run(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        loss_indices: Sequence[int] | None,
    ) -> Captured:
        positional, named = name_inputs(self.model, args, kwargs)
        recorder = self.recorder
        with (
            self.model_without_data(), recorder, drawing(recorder.generator),
            draws_again(recorder.generator), run_time_rates(recorder.rate),
            recordable_methods(recorder.value_of), flexible_attention(recorder),
            packed_sequences(recorder), written_out(recorder.value_of), _compiling(),
            _user_errors(self.model, recorder.findings),
        ):  # fmt: skip
            results = self.forward(positional, named)
            self._assigned_buffers()
            gradients = self.backward(results, loss_indices) if self.training else []
            self._updates()  # what a checkpoint computes again may change buffers again
            self.outputs += gradients
        recorder.findings.raise_refused()
        captured = self.captured(results)
        recorder.let_go()
        return captured

    @contextlib.contextmanager
    def model_without_data(self) -> Iterator[None]:
        """Parameters and buffers replaced by tensors of the same type without data."""
        twins: dict[int, torch.Tensor] = {}
        with restored(self.model):
            for path, module in self.model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    raise CaptureError(
                        f"{path or 'the model'} is TorchScript, whose weights nothing can stand in"
                        " for; use the module that it was made from"
                    )
                tables: list[tuple[dict[str, Any], str]]
                tables = [(module._parameters, "parameter"), (module._buffers, "buffer")]
                for table, role in tables:
                    for key, value in table.items():
                        if value is None:
                            continue
                        if id(value) not in twins:
                            full_path = f"{path}.{key}" if path else key
                            twins[id(value)] = self._twin(full_path, value, role)
                        table[key] = twins[id(value)]
            yield

    def _twin(self, path: str, value: torch.Tensor, role: Any) -> torch.Tensor:
        if is_lazy(value):
            raise CaptureError(
                f"the {role} {path} has no shape yet; run the model once on the host,"
                " model(*inputs), before it is compiled or traced"
            )
        name = symbol_name(self.model, path)
        twin: torch.Tensor = torch.empty(value.shape, dtype=value.dtype, device="meta")
        if role == "parameter":
            twin = nn.Parameter(twin, requires_grad=value.requires_grad and self.training)
        self._declare(name, twin, role)
        self.paths[name] = path
        return twin

    def _declare(self, name: str, value: torch.Tensor, role: Any) -> Node:
        node = self._add_input(input_node(name, type_of(value), role))
        self.sources[name] = value
        self.recorder.own(value, node)
        return node

    def _add_input(self, node: Node) -> Node:
        if node.name in self.inputs:
            raise InputError(
                f"two tensors of the model are called {node.name!r}; give each its own name"
            )
        self.inputs[node.name] = node
        return node

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        def leaf(value: Any) -> Any:
            if not isinstance(value, NamedTensor):
                return value
            wants_grad = value.tensor.requires_grad and self.training
            twin = torch.empty(value.tensor.shape, dtype=value.tensor.dtype, device="meta")
            self._declare(input_name(value.name), twin.requires_grad_(wants_grad), "input")
            return twin

        given = tree_map(leaf, (args, kwargs))
        with (
            torch.set_grad_enabled(self.training), self.recorder.names.follow(self.model),
            self.recorder.clock.pytorch(),
        ):  # fmt: skip
            # not model(...): a program may have replaced its class's __call__
            returned = nn.Module.__call__(self.model, *given[0], **given[1])
        results = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
        if not results:
            raise CaptureError(
                "the model's forward returns no tensor; return the loss or the outputs"
            )
        for index, result in enumerate(results):
            self._output(index, result)
        return results

    def _output(self, index: int, result: torch.Tensor) -> None:
        node = self.recorder.node_of(result)
        name = self.recorder.names.of(result, f"{model_name(self.model)}__outputs__{index}")
        if name in {*(spec.name for spec in self.specs), *self.inputs}:
            name = f"{name}__{index}"
        self.specs.append(OutputSpec(name, result.dtype, tuple(result.shape)))
        self.outputs.append(Output(name, "output", node))

    def _assigned_buffers(self) -> None:
        """`self.mean = ...` is what `self.mean.copy_(...)` is.  A table that grew to fit is made in
        each run instead.
        """
        assigned: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name, path in self.paths.items():
            owner, _, key = path.rpartition(".")
            now, held = self.model.get_submodule(owner)._buffers.get(key), self.sources[name]
            if now is not None and now is not held and now.shape == held.shape:
                assigned.append((held, now.detach().clone()))
        for held, now in assigned:
            held.copy_(now)

    def _updates(self) -> None:
        """Buffers that the model changes in place, and parameters."""
        for node in self.inputs.values():
            now = self.recorder.node_of(self.sources[node.name])
            if now is node:
                continue
            if node.role == "input":
                raise CaptureError(
                    f"{self.recorder.changed_at(self.sources[node.name])}: the input {node.name} is"
                    " changed in place; a compiled program can change buffers and parameters only."
                    " Work on a clone"
                )
            self.outputs.append(Output(node.name, "update", now))

    def backward(
        self, results: list[torch.Tensor], loss_indices: Sequence[int] | None
    ) -> list[Output]:
        """Gradients of everything that requires one, started by a tangent for each
        differentiable output.
        """
        starts = [i for i, r in enumerate(results) if r.requires_grad]
        if not starts:
            raise CaptureError(
                "no output of the model depends on a parameter that requires a gradient"
            )
        losses = _loss_outputs(results, starts, loss_indices)
        tangents: list[torch.Tensor] = []
        for i in starts:
            tangent = torch.empty(results[i].shape, dtype=results[i].dtype, device="meta")
            node = self._declare(f"{self.specs[i].name}__grad", tangent, "tangent")
            self.start_gradients[node.name] = 1 / max(results[i].numel(), 1) if i in losses else 0.0
            tangents.append(tangent)
        wanted = [name for name in self.inputs if self.sources[name].requires_grad]
        self.recorder.section = "BCKWD"
        with self.recorder.clock.pytorch():
            gradients = torch.autograd.grad(
                [results[i] for i in starts],
                [self.sources[n] for n in wanted],
                tangents,
                allow_unused=True,
            )
        return [
            Output(name, "gradient", self.recorder.node_of(gradient))
            for name, gradient in zip(wanted, gradients, strict=True)
            if gradient is not None
        ]

    def complex_symbols(self) -> tuple[str, ...]:
        outputs = [spec.name for spec in self.specs if spec.dtype.is_complex]
        return (*(n for n, tensor in self.sources.items() if tensor.is_complex()), *outputs)

    def captured(self, results: list[torch.Tensor]) -> Captured:
        drawn = self.recorder.generator
        for node in (*drawn.state, *(node for node, _ in drawn.rates.values())):
            self._add_input(node)
        if drawn.run is not None:
            self.outputs.append(Output(RUN, "update", drawn.run))
        held = list(self.recorder.constants.values())
        if held:
            reached = set(postorder(output.node for output in self.outputs))
            held = [(node, tensor) for node, tensor in held if node in reached]
        inputs = [*self.inputs.values(), *(node for node, _ in held)]
        graph = graph_of(model_name(self.model), inputs, self.outputs)
        return Captured(
            graph=graph,
            training=self.training,
            outputs=tuple(self.specs),
            paths=self.paths,
            constants={node.name: tensor for node, tensor in held},
            start_gradients=self.start_gradients,
            rates={name: rate for name, (_, rate) in drawn.rates.items()},
            complex=self.complex_symbols(),
            pytorch_s=self.recorder.clock.pytorch_s,
        )


def _loss_outputs(
    results: list[torch.Tensor], starts: list[int], given: Sequence[int] | None
) -> set[int]:
    """Which outputs start the backward pass by default: those named, else the scalars, else the
    first.
    """
    if given is not None:
        wrong = [i for i in given if i not in starts]
        if wrong:
            raise CaptureError(f"loss_indices names output {wrong[0]}, which is not differentiable")
        return set(given)
    scalars = {i for i in starts if results[i].numel() == 1 and results[i].dim() == 0}
    found = scalars or {starts[0]}
    if any(results[i].is_complex() for i in found):
        raise CaptureError(
            "the loss is complex, and has no gradient; return its abs() or real part"
        )
    return found
