"""A loaded PEF bound to a host model: checks that they belong together and moves values between
them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from batucada.capture import Captured, OutputSpec, capture, describe_optimizers
from batucada.codegen.target import Target, host_target, runs_on, target_of
from batucada.config import Options
from batucada.errors import CaptureError, PefError, PefMismatchError
from batucada.ir.text import graph_hash, print_graph
from batucada.pef import Pef, SymbolRecord, read_pef
from batucada.runtime.executor import Executor, load_native
from batucada.runtime.resident import forget_source_lines, give_back_free_memory
from batucada.runtime.results import as_kept, given, given_dtype

if TYPE_CHECKING:
    from batucada.runtime.profile import StageTime


def load(path: Path | str, options: Options | None = None) -> Program:
    """The program of a PEF, its native code loaded.

    On a processor that lacks what the PEF was built for, the code is built again from the LLVM IR
    inside, with one line on stderr.  PefError when the file is missing, damaged, too new or for
    another architecture.
    """
    forget_source_lines()  # of a model's libraries, imported meanwhile
    options = (options or Options()).with_environment()
    pef = read_pef(path)
    return Program(pef, load_native(_object_code(pef)), options.thread_count())


def _object_code(pef: Pef) -> bytes:
    built_for = pef.manifest.target
    host = host_target()
    target = Target(
        built_for.triple, built_for.level, built_for.vector_bytes, host.vector_registers
    )
    if built_for.level not in _known_levels(host):
        raise PefError(f"{pef.path}: built for the unknown processor level {built_for.level!r}")
    if runs_on(target_of(target.level), host):
        return pef.member(f"object/{built_for.level}.o")
    if target_of(target.level).is_x86 != host.is_x86:
        raise PefError(
            f"{pef.path}: built for {built_for.triple}, this machine is {host.triple};"
            " compile it again"
        )
    print(
        f"batucada: {pef.path} was built for {built_for.level}, this processor is {host.level}:"
        " building it again",
        file=sys.stderr,
    )
    from batucada.codegen.objects import assemble  # LLVM is loaded only where it is needed

    return assemble(_for_host(pef.text("module.ll"), built_for.triple, host), host)


def _known_levels(host: Target) -> tuple[str, ...]:
    return ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", host.level)


def _for_host(module_ir: str, triple: str, host: Target) -> str:
    """The module without the attributes that name its first processor."""
    return module_ir.replace(triple, host.triple)


class Program(Executor):
    """What `load` gives.  It has its own copy of parameters, buffers and optimizer state: the
    host's change on `to_host` only, the program's by running and on `attach`, `to_device` and
    `write`."""

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        return tuple(
            OutputSpec(s.name, given_dtype(s), s.torch_shape)
            for s in self.manifest.of_role("output")
        )

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A whole step on the inputs, in the order of `input_names`; the tensors of the outputs."""
        return tuple(result.tensor() for result in self.run(self.input_names, tensors))

    def __repr__(self) -> str:
        kind = "training" if self.training else "inference"
        outputs = ", ".join(spec.name for spec in self.outputs)
        return f"Program({self.pef.path}: {kind}, {', '.join(self.input_names)} -> {outputs})"

    def attach(
        self,
        model: nn.Module,
        args: Any,
        kwargs: Mapping[str, Any] | None = None,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        transfer: bool = True,
    ) -> None:
        """Trace the model by shape, check that the PEF was compiled from the same graph, and
        copy its parameters (unless not `transfer`).  PefMismatchError says what was compiled and
        what is given."""
        training = bool(optimizers)
        if training and not self.training:
            raise PefMismatchError(
                "the PEF was compiled for inference, without an optimizer; training needs one"
            )
        give_back_free_memory()  # of loading, before the capture needs most
        self._check_model(model, args, kwargs, training)
        self._check_optimizers(model, optimizers)
        give_back_free_memory()  # of the capture, before the first run needs most
        self._default = {"FWD"} if self.training and not training else None
        self.seed(torch.initial_seed())
        if transfer:
            self.to_device(model, optimizers)

    def profile(
        self, tensors: Sequence[torch.Tensor] | None = None, steps: int = 20
    ) -> tuple[StageTime, ...]:
        """How long each stage of a whole step takes, in the order in which they run: the fastest of
        `steps` steps, which change parameters like any others.  Inputs are random if not given.
        """
        from batucada.runtime.profile import random_inputs, stage_times

        inputs = self.manifest.of_role("input")
        given = random_inputs(inputs) if tensors is None else tensors
        self.run([symbol.name for symbol in inputs], given)
        return stage_times(self._native, self.manifest, self._host, self._address, steps)

    def _check_model(self, model: nn.Module, args: Any, kwargs: Any, training: bool) -> None:
        captured = capture(
            model, args, kwargs, training=training, loss_indices=self._loss_indices()
        )
        if not self._is_of(captured):
            raise PefMismatchError(
                self._mode_difference(model, args, kwargs, training)
                or self._difference(captured.graph)
            )

    def _is_of(self, captured: Captured) -> bool:
        """Whether the PEF was compiled from this graph.

        A training PEF evaluates the model whose forward is the beginning of its joint graph.
        """
        if graph_hash(captured.graph) == self.manifest.trace_hash:
            return True
        compiled = _without_results(self._compiled_lines())
        forward = _without_results(_operations(print_graph(captured.graph)))
        evaluates = self.training and not captured.training
        return evaluates and compiled[: len(forward)] == forward

    def _mode_difference(self, model: nn.Module, args: Any, kwargs: Any, training: bool) -> str:
        """What to say if the PEF is of the model in its other mode, training or evaluation."""
        modes = {module: module.training for module in model.modules()}
        evaluates = not model.training
        try:
            model.train(evaluates)
            other = capture(
                model, args, kwargs, training=training, loss_indices=self._loss_indices()
            )
        except CaptureError:
            return ""
        finally:
            for module, mode in modes.items():
                module.training = mode
        if not self._is_of(other):
            return ""
        was, now = ("train", "eval") if evaluates else ("eval", "train")
        return (
            f"the PEF was compiled after model.{was}(), and the model is traced after"
            f" model.{now}(); call model.{was}() before the trace, or compile again"
        )

    def _compiled_lines(self) -> list[str]:
        return _operations(self.pef.text("graph/00-capture.py"))

    def _loss_indices(self) -> list[int] | None:
        """Those of the compilation: outputs whose gradient is not zero by default."""
        if not self.training:
            return None
        starts = {s.of for s in self.manifest.of_role("tangent") if s.default}
        return [
            i for i, s in enumerate(self.manifest.of_role("output")) if s.name in starts
        ] or None

    def _difference(self, graph: Any) -> str:
        """The first symbol, else the first operation, in which the model differs from the
        compiled one.
        """
        given = {n.name: str(n.type) for n in graph.inputs}
        for symbol in self.manifest.of_role("input", "parameter", "buffer"):
            kind = f"{symbol.dtype}[{','.join(map(str, symbol.shape))}]"
            now = given.get(symbol.name)
            if now is None:
                known = ", ".join(n.name for n in graph.inputs if n.role == symbol.role) or "none"
                return (
                    f"the PEF has the {symbol.role} {symbol.name} {kind},"
                    f" the model has not; it has: {known}"
                )
            if now != kind:
                return (
                    f"the {symbol.role} {symbol.name} was compiled as {kind}, the model has {now}; "
                    "compile again, or use the batch size and dimensions of the compilation"
                )
        compiled = {s.name for s in self.manifest.symbols}
        owned = [n for n in graph.inputs if n.role in ("input", "parameter", "buffer")]
        extra = [n.name for n in owned if n.name not in compiled]
        if extra:
            return f"the model has {extra[0]} {given[extra[0]]}, the PEF has not; compile again"
        trained = {out.name for out in graph.of_role("gradient")}
        before = {s.of for s in self.manifest.of_role("gradient")}
        for name in sorted(trained ^ before) if graph.of_role("gradient") else ():
            was, now = ("no", "a") if name in trained else ("a", "no")
            return (
                f"{name} had {was} gradient at compilation, and has {now} gradient now"
                " (requires_grad); compile again"
            )
        was, now = self._first_difference(print_graph(graph))
        return (
            "the model computes something else than the PEF; compile again\n"
            f"  compiled: {was}\n  given:    {now}"
        )

    def _first_difference(self, given: str) -> tuple[str, str]:
        compiled, now = self._compiled_lines(), _operations(given)
        for old, new in zip(compiled, now, strict=False):
            if old != new:
                return old, new
        return f"{len(compiled)} operations", f"{len(now)} operations"

    def _check_optimizers(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        if not optimizers:
            return
        given = describe_optimizers(model, optimizers)
        compiled = self.manifest.optimizers
        if [s.kind for s in given] != [r.class_name for r in compiled]:
            raise PefMismatchError(
                f"compiled with the optimizers {[r.class_name for r in compiled]},"
                f" given {[s.kind for s in given]}"
            )
        for spec, record in zip(given, compiled, strict=True):
            groups = record.options["groups"]
            if [list(g.parameters) for g in spec.groups] != [g["parameters"] for g in groups]:
                raise PefMismatchError(
                    f"the optimizer {spec.name} holds other parameters, or has them in other"
                    f" groups, than at compilation: {len(record.parameters)} parameters in"
                    f" {len(groups)} groups were compiled"
                )
            _check_option(spec.name, "max_grad_norm", record.options, spec.max_grad_norm)
            for group, known in zip(spec.groups, groups, strict=True):
                for key, value in group.options.items():
                    _check_option(spec.name, key, known["options"], value)

    # ---- between host and program

    def to_device(
        self, model: nn.Module | None = None, optimizers: Sequence[torch.optim.Optimizer] = ()
    ) -> None:
        """Copy the host's parameters, buffers and optimizer state into the program."""
        if self._gradients == "recomputable":
            self._keep_gradients()
        for symbol, tensor in list(self.host_tensors(model)) if model is not None else ():
            self.assign(symbol.name, tensor.detach())
        for optimizer, parameter, symbol, states, step in self._states(optimizers):
            held = optimizer.state.get(parameter, {})
            self._momentum.load(symbol, held.get("momentum_buffer"))
            for key, name in states.items():
                value = held.get(key)
                view = self.view(name)
                view.zero_() if value is None else view.copy_(as_kept(value))
            if step in self.symbols:
                # SGD counts no steps; its momentum says whether there were any.
                self.view(step).fill_(float(held.get("step", bool(held))))

    def to_host(
        self, model: nn.Module | None, optimizers: Sequence[torch.optim.Optimizer] = ()
    ) -> None:
        """Copy the program's parameters, buffers and optimizer state into the host's."""
        for symbol, tensor in list(self.host_tensors(model)) if model is not None else ():
            as_kept(tensor.data).copy_(self.value(symbol.name))
        for optimizer, parameter, symbol, states, step in self._states(optimizers):
            if symbol in self._momentum.buffers:
                buffer = self._momentum.buffers[symbol].clone()
                held = optimizer.state[parameter]
                held["momentum_buffer"] = given(self.symbols[symbol], buffer)
            counted = step in self.symbols
            if not states or (counted and float(self.view(step)) == 0):
                continue  # PyTorch, too, has no state of what was never updated
            held = optimizer.state[parameter]
            for key, name in states.items():
                kept = self.view(name).clone(memory_format=torch.contiguous_format)
                held[key] = given(self.symbols[name], kept)
            if counted and not isinstance(optimizer, torch.optim.SGD):  # which counts none itself
                held["step"] = torch.tensor(float(self.view(step)))

    def host_tensors(self, model: nn.Module) -> Iterator[tuple[SymbolRecord, torch.Tensor]]:
        """PefMismatchError when the model lacks a tensor of the PEF or has it in another shape."""
        tensors = dict(model.named_parameters(remove_duplicate=False))
        tensors |= dict(model.named_buffers(remove_duplicate=False))
        for symbol in self.manifest.of_role("parameter", "buffer"):
            tensor = tensors.get(symbol.target)
            shape = symbol.torch_shape
            if tensor is None or tuple(tensor.shape) != shape:
                found = "none" if tensor is None else tuple(tensor.shape)
                raise PefMismatchError(
                    f"{symbol.target}: compiled as {shape}, the model has {found}"
                )
            if tensor.is_complex() != symbol.is_complex:
                was = "complex" if symbol.is_complex else "real"
                raise PefMismatchError(
                    f"{symbol.target}: compiled as {was} numbers, and is not now"
                )
            yield symbol, tensor

    def _states(
        self, optimizers: Sequence[torch.optim.Optimizer]
    ) -> Iterator[tuple[torch.optim.Optimizer, torch.Tensor, str, dict[str, str], str]]:
        """(optimizer, parameter, its symbol, PyTorch's key -> state symbol, step symbol)"""
        for optimizer, record in zip(optimizers, self.manifest.optimizers, strict=False):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if len(parameters) != len(record.parameters):
                raise CaptureError("the optimizer holds other parameters than at compilation")
            for parameter, name in zip(parameters, record.parameters, strict=True):
                states = record.options["state"].get(name, {})
                yield optimizer, parameter, name, states, f"{record.options['name']}__step"


def _check_option(optimizer: str, key: str, compiled: Mapping[str, Any], given: Any) -> None:
    if compiled[key] != given:
        raise PefMismatchError(
            f"{optimizer}: {key} was compiled as {compiled[key]}, given {given}; compile again"
        )


def _without_results(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("output(", "update(", "gradient("))]


def _operations(text: str) -> list[str]:
    """The lines of a printed graph, without its inputs and the places in the user's files."""
    return [line.split("  # ")[0].strip() for line in text.splitlines()[1:]]
