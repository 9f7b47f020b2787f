"""`samba.session`: compile a model, trace it against its PEF, run it, move its data."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import batucada
from batucada.errors import OptionError
from sambaflow.logging import no_effect
from sambaflow.samba import compilation, device, profiler, running
from sambaflow.samba.sambatensor import (
    SambaTensor,
    from_result,
    from_torch_tensor,
    plain_results,
    unwrap,
)
from sambaflow.samba.traced import TracedTensor, input_tree, optimizer_list

# What the RDU's session has and this one has not, and the reason to give.
_ABSENT = {
    "add_graph": "a PEF holds one graph",
    "compile_multigraph": "a PEF holds one graph; compile each model to a PEF of its own",
    "init_multigraph_runtime": "a PEF holds one graph",
    "load_dynamic_dims_config": "shapes are static; compile once for each batch size",
    "create_dynamic_dim": "shapes are static; compile once for each batch size",
    "add_aux_tensor": "return the tensor from forward instead",
    "ctx": "use samba.session.get_tensors_by_name and output.sn_grad",
    "tensor_dict": "use samba.session.get_tensors_by_name and tensor.sn_grad",
}


class SambaSession:
    """One program at a time: the last one traced.  `samba.session` is the instance to use."""

    def __init__(self, pef_path: str = "") -> None:
        self.tracing = False
        self.profiler = profiler.Profiler()
        self.dynamic_dims: dict[str, Any] = {}
        self._context_directives: dict[str, Any] = {}  # none have an effect
        self.outputs: tuple[TracedTensor, ...] = ()
        self.inputs: tuple[SambaTensor, ...] = ()
        self.optimizers: tuple[Optimizer, ...] = ()
        self.model: nn.Module | None = None
        self._data_parallel = False
        self._symbols: dict[int, str] = {}
        self._program: Any = batucada.load(Path(pef_path)) if pef_path else None
        device.set_current(self)

    def __getattr__(self, name: str) -> Any:
        if name in _ABSENT:
            raise OptionError(f"samba.session.{name} is not there: {_ABSENT[name]}")
        raise AttributeError(f"samba.session has no member {name!r}")

    @property
    def program(self) -> Any:
        """The loaded `batucada` Program; OptionError when nothing was traced yet."""
        if self._program is None:
            raise OptionError(
                "no program is loaded: call samba.utils.trace_graph(model, inputs, pef=...) first"
            )
        return self._program

    def compile(
        self,
        model: nn.Module,
        inputs: Any,
        optimizers: Optimizer | Sequence[Optimizer] | None = None,
        name: str | None = None,
        app_dir: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        pef_metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Compile `model` to `<output_folder>/<pef_name>/<pef_name>.pef`; returns that path.

        `inputs` are dummies in the order of forward's arguments, or a dict by argument.  Without
        `optimizers`, or for inference, the program is the forward pass alone.
        """
        with self._traces():
            compiled = compilation.compile_model(
                model, inputs, optimizers, name, config_dict, pef_metadata, options
            )
        self._set_outputs(model, compiled.outputs)
        return str(compiled.path or "")

    def trace(
        self,
        model: nn.Module,
        inputs: Any,
        optimizers: Any,
        pef: Path,
        transfer: bool,
        data_parallel: bool = False,
    ) -> tuple[TracedTensor, ...]:
        """Load `pef`, check that it is of this model, and copy the model to the device.

        With `data_parallel` every run reduces gradients over the processes of this job.
        """
        program = batucada.load(pef)
        if data_parallel:
            program.require_data_parallel()
        tree = input_tree(model, inputs)
        listed = optimizer_list(optimizers)
        with self._traces():
            program.attach(model, *tree, listed, transfer)
        self._program = program
        self._data_parallel = data_parallel
        self.model, self.optimizers = model, listed
        self.inputs = running.samba_tensors(tree)
        self._symbols = {
            id(tensor): batucada.symbol_name(model, path)
            for path, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        return self._set_outputs(model, program.outputs)

    def _set_outputs(self, model: nn.Module, specs: Iterable[Any]) -> tuple[TracedTensor, ...]:
        self.outputs = tuple(TracedTensor(spec.name, spec.shape, spec.dtype) for spec in specs)
        model.output_tensors = self.outputs  # type: ignore[assignment]
        return self.outputs

    @contextlib.contextmanager
    def _traces(self):
        before, self.tracing = self.tracing, True
        try:
            with plain_results():
                yield
        finally:
            self.tracing = before

    def run(
        self,
        input_tensors: Any,
        output_tensors: Any = None,
        hyperparam_dict: Mapping[str, float] | None = None,
        section_types: Sequence[str] | None = None,
        data_parallel: bool = False,
        reduce_on_rdu: bool = False,
        data_parallel_mode: str = "normal",
        grad_of_outputs: Sequence[Any] | None = None,
        graph_name: str | None = None,
    ) -> Sequence[SambaTensor]:
        """Run the program once; returns the outputs in forward's order, fetched when read.

        Inputs are matched by name.  Without `section_types` every section of the PEF runs: for a
        training PEF forward, backward and the update.  Hyperparameters keep their last value.
        With `data_parallel` the update uses the mean of the gradients of all processes of the job.
        """
        if data_parallel or self._data_parallel or grad_of_outputs is not None:
            self._prepare(data_parallel or self._data_parallel, grad_of_outputs)
        try:
            names = [tensor.name for tensor in input_tensors]
            tensors = [tensor._tensor for tensor in input_tensors]
        except (AttributeError, TypeError):
            names, tensors = self.named(input_tensors)
        if "" in names:
            names, tensors = self.named(input_tensors)
        results = self.program.run(names, tensors, section_types, hyperparam_dict)
        if output_tensors is None or output_tensors is self.outputs:
            return [from_result(result) for result in results]
        return running.selected(results, output_tensors)

    def _prepare(self, data_parallel: bool, grad_of_outputs: Sequence[Any] | None) -> None:
        program = self.program
        if data_parallel:
            self.replicate()
        for index, gradient in enumerate(grad_of_outputs or ()):
            program.set_output_gradient(index, unwrap(gradient))

    def replicate(self) -> None:
        """Make the program one of as many replicas as this job has processes."""
        batucada.join()
        self.program.replicate()

    def named(self, input_tensors: Any) -> tuple[list[str], list[torch.Tensor]]:
        """Names and torch tensors of a run's inputs, whatever they were given as."""
        return running.named_inputs(input_tensors, self.program.input_names)

    # --- moving data ---
    def to_cpu(self, model: nn.Module, optimizers: Any = None) -> None:
        """Copy parameters, buffers and optimizer state from the device into the host's `model`."""
        self.program.to_host(model, optimizer_list(optimizers) or self.optimizers)

    def to_rdu(self, model: nn.Module | None = None, optimizers: Any = None) -> None:
        """Copy the host's parameters, buffers and optimizer state to the device."""
        listed = optimizer_list(optimizers) or self.optimizers
        self.program.to_device(self.model if model is None else model, listed)

    def to_device(self) -> None:
        """Copy what was traced to the device, after `trace_graph(transfer_device=False)`."""
        self.to_rdu()

    def state_to_host(self, optimizer: Optimizer) -> None:
        """Copy the traced optimizers' state to the host, if this is one; no model changes."""
        if self._program is not None and any(optimizer is known for known in self.optimizers):
            self._program.to_host(None, self.optimizers)

    def state_to_device(self, optimizer: Optimizer) -> None:
        """Copy the host's state of the traced optimizers to the device, if this is one."""
        if self._program is not None and any(optimizer is known for known in self.optimizers):
            self._program.to_device(None, self.optimizers)

    # --- single tensors ---
    def symbol_of(self, tensor: Any) -> str:
        """The device's name of a parameter or buffer of the traced model, or of a named tensor."""
        symbol = self._symbols.get(id(tensor)) or getattr(tensor, "sn_name", "")
        if not symbol:
            raise OptionError(
                "this tensor has no counterpart on the device: it is neither a parameter or buffer "
                "of the traced model nor a named SambaTensor"
            )
        return symbol

    def gradient_of(self, tensor: Any) -> torch.Tensor:
        return self.program.gradient(self.symbol_of(tensor))

    def value_of(self, tensor: Any) -> torch.Tensor:
        return self.program.read(self.symbol_of(tensor))

    def set_value(self, tensor: Any, value: torch.Tensor) -> None:
        self.program.write(self.symbol_of(tensor), value)

    def set_output_gradient(self, name: str, gradient: torch.Tensor | None) -> None:
        names = [spec.name for spec in self.program.outputs]
        if name not in names:
            raise OptionError(
                f"sn_grad can be set on an output only: {name!r} is none of {', '.join(names)}"
            )
        self.program.set_output_gradient(names.index(name), gradient)

    def get_tensors(self, tensors: Any) -> list[SambaTensor]:
        """The device's values of `tensors`."""
        listed = [tensors] if isinstance(tensors, SambaTensor) else list(tensors)
        return self.get_tensors_by_name([self.symbol_of(tensor) for tensor in listed])

    def get_tensors_by_name(self, names: Sequence[str]) -> list[SambaTensor]:
        """The device's values of these symbols."""
        return [from_torch_tensor(self.program.read(name), name) for name in names]

    def _by_role(self, role: str) -> dict[str, SambaTensor]:
        records = self.program.manifest.of_role(role)
        return {record.name: TracedTensor.of_symbol(record) for record in records}

    @property
    def buffer_dict(self) -> dict[str, SambaTensor]:
        """The model's buffers on the device, by symbol name."""
        return self._by_role("buffer")

    @property
    def optim_dict(self) -> dict[str, SambaTensor]:
        """The optimizers' state on the device, by symbol name."""
        return self._by_role("state")

    def _traced_tensors(self) -> list[SambaTensor]:
        roles = ("parameter", "buffer", "state")
        return [tensor for role in roles for tensor in self._by_role(role).values()]

    def seed(self, seed: int) -> None:
        """Start the random numbers of the program, if one is loaded, anew."""
        if self._program is not None:
            self._program.seed(seed)

    def get_dropout_rate_argin_names(self) -> list[str]:
        """The hyperparameters that are the rate of one dropout; `p` sets all of them."""
        return list(self.program.dropout_rates)

    # --- profiles ---
    def start_runtime_profile(self) -> None:
        """Time every run until `end_runtime_profile`."""
        # An attribute of the instance hides the method, so runs that nobody times cost nothing.
        self.run = running.timed(type(self).run.__get__(self))  # type: ignore[method-assign]

    def end_runtime_profile(self, filename: str = "runtime_profile.log") -> None:
        """Write the times of the runs since `start_runtime_profile` to `filename`."""
        if "run" not in self.__dict__:
            raise OptionError("end_runtime_profile without start_runtime_profile")
        running.write_times(self.__dict__.pop("run").seconds, Path(filename))

    def start_samba_profile(self) -> None:
        """Profile this process's Python code until `end_samba_profile`."""
        self.profiler.start_profile()

    def end_samba_profile(self, filename: str = "samba_profile.log") -> None:
        self.profiler.stop_profile()
        self.profiler.write(Path(filename))

    # --- what an RDU needs and this machine does not ---
    def setup(self, args: Any) -> None:
        """Take the arguments of later compiles and traces from this record."""
        from sambaflow.samba.utils import argparser

        argparser.remember(args)

    def use_static_functional(self) -> bool:
        return self.tracing

    def enable_pinned_memory(self) -> None:
        no_effect("samba.session.enable_pinned_memory")

    def disable_pinned_memory(self) -> None:
        no_effect("samba.session.disable_pinned_memory")

    enabled_pinned_memory = False

    def disable_graphamp(self) -> contextlib.AbstractContextManager[None]:
        no_effect("samba.session.disable_graphamp", "arithmetic keeps the model's dtypes")
        return contextlib.nullcontext()

    def _add_directives(self, directives: Mapping[str, Any]) -> contextlib.AbstractContextManager:
        no_effect("a compiler directive")
        return contextlib.nullcontext(directives)

    def is_valid_aux_tensor_name(self, name: str) -> bool:
        return False

    @staticmethod
    def disable_lazy_param() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @staticmethod
    def atexit_register(function: Callable, *args: Any, **kwargs: Any) -> None:
        atexit.register(function, *args, **kwargs)


session = SambaSession()
