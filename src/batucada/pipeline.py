"""The compiler on one page: the steps in order, each verified and, if asked, dumped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from batucada.artifact import StoredTexts, pack
from batucada.cache import Cache, cache_folder, compiler_fingerprint, key_of
from batucada.capture import (
    Captured,
    OptimizerSpec,
    OutputSpec,
    append_optimizers,
    capture,
    describe_optimizers,
)
from batucada.codegen.build import Kernels, link, lower_program
from batucada.codegen.llvm import ModuleIR
from batucada.codegen.objects import assemble, assembly
from batucada.codegen.target import Target, host_target, target_of
from batucada.config import Options
from batucada.errors import OptionError
from batucada.garbage import collected_rarely
from batucada.ir.graph import Graph
from batucada.ir.loops_text import print_kernel
from batucada.ir.loops_verify import verify_kernel
from batucada.ir.text import print_graph
from batucada.ir.verify import verify
from batucada.mapping import Program, map_graph
from batucada.mapping.text import print_program
from batucada.passes.layout import store_weights_packed
from batucada.passes.products import join_products, join_steps
from batucada.passes.recompute import recompute
from batucada.passes.simplify import simplify
from batucada.passes.slices import slice_early
from batucada.pef import Manifest, Packed, pack_members, write_pef
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
    """What a compilation leaves: the PEF's path, the outputs in order, and seconds by step, with
    those that PyTorch took in the first.

    `texts` holds every level as text: STEPS up to `module`, under their names.  `path` is None
    when the pipeline was stopped before the PEF."""

    path: Path | None
    outputs: tuple[OutputSpec, ...]
    report: dict[str, Any]
    texts: Mapping[str, str]


class _Stopped(Exception):
    pass


@dataclass
class _Run:
    """Times, dumps and ends the steps."""

    options: Options
    progress: Callable[[str, float], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    stored: StoredTexts | None = None  # of what comes from the cache

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
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
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

    `args` is a tensor, a sequence in the order of forward's arguments, or a dict by argument; a
    tensor may be a `NamedTensor`, else it is called as its argument (see `name_inputs`).  Only
    names, shapes and dtypes of tensors count.
    Without optimizers the program is an inference.  `loss_indices` are the outputs whose mean
    starts the backward pass (by default the 0-dimensional ones, else the first).  `progress(step,
    seconds)` is called after each step.  CaptureError for what cannot be compiled, OutputError when
    the file cannot be written; then there is no file, or the old one whole.
    """
    options = (options or Options()).with_environment()
    run = _Run(options, progress)
    cache = _cache(options)
    captured: Captured | None = None
    written: Path | None = None
    with suppress(_Stopped), collected_rarely():
        with run.step("capture"):  # the only step that knows the model
            captured = capture(
                model, args, kwargs, training=bool(optimizers), loss_indices=loss_indices
            )
            if cache is None:
                run.texts["capture"] = print_graph(captured.graph)
        with run.step("optimizers"):
            specs = describe_optimizers(model, optimizers)
            graph = append_optimizers(captured.graph, specs, options.data_parallel)
            run.texts["optimizers"] = print_graph(graph)
        manifest, members = _taken_or_built(captured, specs, graph, run, cache)
        with run.step("pef"):
            manifest = replace(
                manifest,
                name=name,
                metadata=dict(metadata or {}),
                arguments=dict(arguments or {}),
                report={
                    **manifest.report,
                    "seconds": run.seconds,
                    "pytorch_s": captured.pytorch_s,
                    "cached": "object" not in run.seconds,
                },
            )
            written = Path(path)
            write_pef(written, manifest, members)
    assert captured is not None
    report = {"seconds": run.seconds, "pytorch_s": captured.pytorch_s}
    return Compiled(written, captured.outputs, report, run.stored or run.texts)


def _taken_or_built(
    captured: Captured, specs: Sequence[OptimizerSpec], graph: Graph, run: _Run,
    cache: Cache | None,
) -> tuple[Manifest, dict[str, bytes] | dict[str, Packed]]:  # fmt: skip
    """From the cache, if the same was compiled before."""
    if cache is None:
        return _built(captured, specs, graph, run)
    with run.step("cache"):
        key = _cache_key(captured, specs, run)
        known = cache.find(key)
    if known is not None:
        run.stored = StoredTexts(known)
        return known.manifest, known.packed()
    run.texts["capture"] = print_graph(captured.graph)
    manifest, members = _built(captured, specs, graph, run)
    packed = pack_members(members)
    cache.keep(key, manifest, packed)
    return manifest, packed


def _built(
    captured: Captured, specs: Sequence[OptimizerSpec], graph: Graph, run: _Run
) -> tuple[Manifest, dict[str, bytes]]:
    """The steps from the graph to object code.  A graph that comes from the cache was verified
    when it was compiled.
    """
    options = run.options
    verify(captured.graph)
    verify(graph)
    with run.step("simplify"):
        simple = simplify(graph)
        early = slice_early(simple)
        graph = run.checked("simplify", graph, simple if early is simple else simplify(early))
        run.texts["simplify"] = print_graph(graph)
    with run.step("layout"):  # it looks for products of plainly transposed weights
        stored = store_weights_packed(join_steps(join_products(graph)))
        graph = run.checked("layout", graph, recompute(stored))
        run.texts["layout"] = print_graph(graph)
    with run.step("mapping"):  # from here on every value has a place
        program = map_graph(graph, int(options.bucket_mb * 2**20))
        run.texts["mapping"] = print_program(program)
    with run.step("kernels"):
        kernels = _lowered(program)
        run.texts["kernels"] = "\n".join(print_kernel(kernel) for kernel in kernels.all)
    target = _target(options)
    with run.step("module"):
        module = link(program, kernels, target, options.checked)
        run.texts["module"] = module.text
    with run.step("object"):
        code = _object(module, target, run)
    return pack(
        captured, specs, program, kernels, target, run.texts, code, _constants(captured),
        torch_version=torch.__version__,
        report={"checked": options.checked, "sites": list(module.sites)},
    )  # fmt: skip


def _target(options: Options) -> Target:
    return target_of(options.target) if options.target else host_target()


def _cache(options: Options) -> Cache | None:
    """None where the steps themselves are what is wanted."""
    if options.dump_dir or options.stop_after or options.oracle or options.debug > 1:
        return None
    folder = cache_folder(options.cache)
    return Cache(folder) if folder is not None else None


def _cache_key(captured: Captured, specs: Sequence[OptimizerSpec], run: _Run) -> str:
    """Everything the members of the PEF depend on, the compiler included.  The graph with the
    optimizers holds the one that was captured.
    """
    options = run.options
    names = (
        captured.outputs, captured.paths, captured.start_gradients, captured.rates,
        captured.complex,
    )  # fmt: skip
    return key_of(
        [
            run.texts["optimizers"], repr(names), repr(specs),
            repr(_target(options)), str((options.checked, captured.training, options.bucket_mb)),
            _constants(captured), compiler_fingerprint(),
        ]
    )  # fmt: skip


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
