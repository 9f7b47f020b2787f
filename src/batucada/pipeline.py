"""The compiler on one page: the steps in order, each verified and, if asked, dumped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from batucada.artifact import pack
from batucada.capture import Captured, OutputSpec, append_optimizers, capture, describe_optimizers
from batucada.codegen.build import Kernels, link, lower_program
from batucada.codegen.llvm import ModuleIR
from batucada.codegen.objects import assemble, assembly
from batucada.codegen.target import Target, host_target, target_of
from batucada.config import Options
from batucada.errors import OptionError
from batucada.ir.graph import Graph
from batucada.ir.loops_text import print_kernel
from batucada.ir.loops_verify import verify_kernel
from batucada.ir.text import print_graph
from batucada.ir.verify import verify
from batucada.mapping import Program, map_graph
from batucada.mapping.text import print_program
from batucada.passes.layout import store_weights_packed
from batucada.passes.simplify import simplify
from batucada.pef import write_pef
from batucada.runtime.oracle import check_step

STEPS = (
    "capture",
    "optimizers",
    "simplify",
    "layout",
    "mapping",
    "kernels",
    "module",
    "object",
    "pef",
)


@dataclass(frozen=True)
class Compiled:
    """What a compilation leaves: the PEF's path, the outputs in order, and seconds and sizes by
    step.

    `texts` holds every level as text: STEPS up to `module`, under their names.  `path` is None
    when the pipeline was stopped before the PEF."""

    path: Path | None
    outputs: tuple[OutputSpec, ...]
    report: dict[str, Any]
    texts: dict[str, str]


class _Stopped(Exception):
    pass


@dataclass
class _Run:
    """Times, dumps and ends the steps."""

    options: Options
    progress: Callable[[str, float], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options.stop_after not in (None, *STEPS):
            raise OptionError(
                f"no step is called {self.options.stop_after!r}; the steps are {', '.join(STEPS)}"
            )

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        if self.progress is not None:
            self.progress(name, self.seconds[name])
        self._debug(name)
        self._dump(name)
        if self.options.stop_after == name:
            raise _Stopped

    def checked(self, name: str, before: Graph, after: Graph) -> Graph:
        """The graph after a step, verified and, if asked, compared by the oracle."""
        verify(after)
        if self.options.oracle:
            check_step(name, before, after)
        return after

    def _debug(self, name: str) -> None:
        """A ladder: 1 the steps with their times, 2 the stages, 3 every kernel."""
        if self.options.debug >= 1:
            print(f"batucada: {name} {self.seconds[name]:.3f} s", file=sys.stderr)
        level = {"mapping": 2, "kernels": 3}.get(name)
        if level is not None and self.options.debug >= level:
            print(self.texts[name], file=sys.stderr)

    def _dump(self, name: str) -> None:
        folder = self.options.dump_dir
        if folder is None or name not in self.texts:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        suffix = {"module": "ll", "object": "s"}.get(name, "py")
        (Path(folder) / f"{STEPS.index(name):02d}-{name}.{suffix}").write_text(self.texts[name])


def compile(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    *,
    path: Path | str,
    name: str = "model",
    loss_indices: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
    arguments: Mapping[str, str] | None = None,
    options: Options | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compiled:
    """Compile `model(*args, **kwargs)`, its backward pass and its optimizers into one PEF at
    `path`.

    Tensors among args and kwargs are `NamedTensor`s: only their names, shapes and dtypes count.
    Without optimizers the program is an inference.  `loss_indices` are the outputs whose mean
    starts the backward pass (by default the 0-dimensional ones, else the first).  `progress(step,
    seconds)` is called after each step.  CaptureError for what cannot be compiled, OutputError when
    the file cannot be written; then there is no file, or the old one whole.
    """
    options = (options or Options()).with_environment()
    run = _Run(options, progress)
    captured: Captured | None = None
    written: Path | None = None
    try:
        with run.step("capture"):  # the only step that knows the model
            captured = capture(
                model, args, kwargs, training=bool(optimizers), loss_indices=loss_indices
            )
            run.texts["capture"] = print_graph(verify(captured.graph))
        with run.step("optimizers"):
            specs = describe_optimizers(model, optimizers)
            graph = verify(append_optimizers(captured.graph, specs))
            run.texts["optimizers"] = print_graph(graph)
        with run.step("simplify"):
            graph = run.checked("simplify", graph, simplify(graph))
            run.texts["simplify"] = print_graph(graph)
        with run.step("layout"):  # it looks for products of plainly transposed weights
            graph = run.checked("layout", graph, store_weights_packed(graph))
            run.texts["layout"] = print_graph(graph)
        with run.step("mapping"):  # from here on every value has a place
            program = map_graph(graph)
            run.texts["mapping"] = print_program(program)
        with run.step("kernels"):
            kernels = _lowered(program)
            run.texts["kernels"] = "\n".join(print_kernel(kernel) for kernel in kernels.all)
        target = target_of(options.target) if options.target else host_target()
        with run.step("module"):
            module = link(program, kernels, target, options.checked)
            run.texts["module"] = module.text
        with run.step("object"):
            code = _object(module, target, run)
        with run.step("pef"):
            report = {
                "seconds": run.seconds,
                "checked": options.checked,
                "sites": list(module.sites),
            }
            manifest, members = pack(
                captured, specs, program, kernels, target, run.texts, code, _constants(captured),
                name=name, torch_version=torch.__version__, metadata=metadata or {},
                arguments=arguments or {}, report=report,
            )  # fmt: skip
            written = Path(path)
            write_pef(written, manifest, members)
    except _Stopped:
        pass
    assert captured is not None
    return Compiled(written, captured.outputs, {"seconds": run.seconds}, run.texts)


def _constants(captured: Captured) -> bytes:
    """The tensors the model closes over, as safetensors; empty where there are none."""
    tensors = {name: t.detach().contiguous() for name, t in captured.constants.items()}
    return save_tensors(tensors) if tensors else b""


def _lowered(program: Program) -> Kernels:
    kernels = lower_program(program)
    for kernel in kernels.all:
        verify_kernel(kernel)
    return kernels


def _object(module: ModuleIR, target: Target, run: _Run) -> bytes:
    if run.options.dump_dir is not None:
        run.texts["object"] = assembly(module.text, target)
    return assemble(module.text, target)
