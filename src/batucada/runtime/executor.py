"""Runs a PEF: binds names to addresses once, then calls native code with the interpreter lock
released.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from batucada.errors import InputError, OptionError, PefError
from batucada.ir.graph import identifier
from batucada.pef import Pef
from batucada.runtime.host import HostStage
from batucada.runtime.inputs import Batch, check_names, fitted, range_error, tracked
from batucada.runtime.native import NativeModule, ThreadPool
from batucada.runtime.results import Result, ResultMemory, torch_dtype
from batucada.runtime.steps import Batches
from batucada.runtime.values import Values

if TYPE_CHECKING:
    from batucada.runtime.replicas import Replicas

SECTION_ORDER = ("FWD", "BCKWD", "REDUCE", "GRADNORM", "OPT")
_AFTER_REDUCE = {"REDUCE", "GRADNORM", "OPT"}
_POOL_SLOT = 1
_WHOLE_STEP: set[str] = set(SECTION_ORDER)


class Executor(Values):
    """A loaded program: its native code, its memory, and its copy of parameters and optimizer
    state.
    """

    def __init__(self, pef: Pef, native: NativeModule, threads: int = 1) -> None:
        super().__init__(pef)
        self.training = pef.manifest.training
        self._native = native
        self._address = ctypes.addressof(self._table)
        self._host = {
            name: HostStage(record, self._table) for name, record in pef.manifest.host.items()
        }
        self._entries = {n: self._entry(e.parts) for n, e in pef.manifest.entries.items()}
        self._step = self._entries["step"]
        if not self._host:
            self._loop = native.function("loop", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._inputs = {
            s.name: (s.slot, torch_dtype(s), torch.Size(s.shape), s)
            for s in pef.manifest.of_role("input")
        }
        self.input_names = tuple(self._inputs)
        self._memory = ResultMemory(pef.manifest.of_role("output"))
        # Where the addresses of the last run's inputs are in the table.
        self._slots: list[int] = []
        self._versions: list[int] = []
        self._default: set[str] | None = None  # what a run without sections runs; None: all
        self._forward: Batch | None = None  # of a FWD that no BCKWD has used yet
        self._pool = self._start_pool(threads)

    def _entry(self, parts: Sequence[str]) -> Callable[[int], int]:
        """Native code, and the stages that PyTorch runs between its functions."""
        steps: list[Callable[[int], int]] = [
            self._host[part].run
            if part in self._host
            else self._native.function(part, ctypes.c_void_p)
            for part in parts
        ]
        if len(steps) == 1:
            return steps[0]

        def run(table: int) -> int:
            for step in steps:
                code = step(table)
                if code:
                    return code
            return 0

        return run

    def _start_pool(self, threads: int) -> ThreadPool | None:
        if threads < 2 or not any(stage.parallel for stage in self.manifest.stages):
            return None
        pool = ThreadPool(threads, self._native)
        self._table[_POOL_SLOT] = pool.address
        return pool

    # ---- running

    def run(
        self,
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
        sections: Sequence[str] | None = None,
        hyper: Mapping[str, float] | None = None,
    ) -> tuple[Result, ...]:
        """One step, or the given sections of it; the outputs in the order of the model's return.

        Inputs are matched by name.  Sections are FWD, BCKWD, GRADNORM, REDUCE and OPT in any case;
        None is all that the PEF has.  Hyperparameters that are not given keep their last value.
        InputError, before anything runs, when something does not fit.
        """
        wanted = self._default if sections is None else self._wanted(sections)
        if self._gradients == "recomputable" and wanted is not None and "BCKWD" not in wanted:
            self._keep_gradients()
        numbers = self._numbers(hyper) if hyper and hyper != self._given_hyper else None
        self._bind(names, tensors)
        if numbers is not None:
            self._set_hyper(numbers)
            # as numbers: a schedule may change its tensor in place
            self._given_hyper = {name: numbers.get(name, v) for name, v in (hyper or {}).items()}
        if wanted is None and (self._momentum_on_host or self._replicas is not None):
            wanted = _WHOLE_STEP
        if wanted is None:
            results = self._memory.record(self._table)
            code = self._step(self._address)
            return self._finished(results, code)
        return self._run_sections(wanted)

    def _finished(self, results: tuple[Result, ...], code: int) -> tuple[Result, ...]:
        """After whole steps."""
        if code:
            self._fail(code)
        self._results = results
        self._forward = None
        if self.training:
            self._gradients = "recomputable" if "regrad" in self._entries else "stored"
        return results

    def _bind(self, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        if len(names) != len(self._inputs) or len(names) != len(tensors):
            check_names(names, self._inputs)
            raise InputError(f"{len(names)} names are given for {len(tensors)} tensors")
        held: list[torch.Tensor] = []
        slots: list[int] = []
        for name, tensor in zip(names, tensors, strict=True):
            known = self._inputs.get(name) or self._inputs.get(identifier(str(name)))
            if known is None:
                check_names(names, self._inputs)
                raise InputError(f"the program has no input {name!r}")
            slot, dtype, shape, symbol = known
            if (
                not isinstance(tensor, torch.Tensor)
                or tensor.dtype is not dtype
                or tensor.shape != shape
                or not tensor.is_contiguous()
                or not tensor.is_cpu
            ):
                tensor = fitted(symbol, tensor)
            held.append(tensor)
            slots.append(slot)
        if len(set(slots)) != len(slots):
            check_names(names, self._inputs)
        try:
            versions = [tensor._version for tensor in held]
        except RuntimeError:  # PyTorch keeps no version of what was made in inference mode
            held = [tracked(tensor) for tensor in held]
            versions = [tensor._version for tensor in held]
        for slot, tensor in zip(slots, held, strict=True):
            self._table[slot] = tensor.data_ptr()
        self._slots = slots
        self._held = held
        self._held_names = names
        self._versions = versions

    def _wanted(self, sections: Sequence[str]) -> set[str] | None:
        """The sections to run in order, or None for a whole step."""
        if isinstance(sections, str):
            sections = [sections]
        asked = {str(section).upper() for section in sections}
        if not asked:
            raise InputError("the list of sections is empty; leave it out to run all of them")
        unknown = asked - set(SECTION_ORDER)
        if unknown:
            raise InputError(
                f"there is no section {sorted(unknown)[0]!r};"
                f" sections are {', '.join(SECTION_ORDER)}"
            )
        if not self.training and asked & {"BCKWD", "OPT"}:
            raise InputError(
                "this PEF was compiled for inference and has FWD only; compile it with an optimizer"
            )
        if {"FWD", "BCKWD", "OPT"} <= asked or (not self.training and "FWD" in asked):
            return None
        if "BCKWD" in asked and "FWD" not in asked and self._forward is None:
            raise InputError("section BCKWD needs the values of FWD; run FWD first")
        updates = sorted(asked & {"GRADNORM", "OPT", "REDUCE"})
        if updates and "BCKWD" not in asked and self._gradients != "stored":
            raise InputError(f"section {updates[-1]} needs the gradients of BCKWD; run BCKWD first")
        return asked

    def _run_sections(self, wanted: set[str]) -> tuple[Result, ...]:
        batch = Batch(self._held_names, self._slots, self._held, self._versions)
        if "FWD" in wanted:
            self._results = self._memory.record(self._table)
            self._call("fwd")
            self._forward = batch
        if "BCKWD" in wanted:
            if self._forward is not batch and self._forward is not None:
                batch.check_same(self._forward)
            self._gradients = "none"
            self._backward(wanted)
            self._forward = None  # its values have made room for those of the backward pass
            self._gradients = "stored"
        replicas = self._replicas if wanted & _AFTER_REDUCE else None
        if replicas is not None and self._updates_by_bucket(replicas, wanted):
            replicas.reduce_and_update(self._call)
            return self._results
        if replicas is not None:
            replicas.reduce()
        if "GRADNORM" in wanted or "OPT" in wanted:
            self._call("gradnorm")
        if "OPT" in wanted and self._momentum_on_host:
            self._momentum.around(lambda: self._call("opt"))
        elif "OPT" in wanted:
            self._call("opt")
        return self._results

    def _updates_by_bucket(self, replicas: Replicas, wanted: set[str]) -> bool:
        return replicas.updates_by_bucket and "OPT" in wanted and not self._momentum_on_host

    def _backward(self, wanted: set[str]) -> None:
        if self._replicas is not None and wanted & _AFTER_REDUCE:
            self._replicas.backward(self._call)
            return
        self._call("bckwd")
        if self._replicas is not None:
            self._replicas.reduced = False

    def replicate(self) -> None:
        """From now on this program is one of as many replicas as `torch.distributed` has ranks.

        All take over rank 0's parameters, buffers, optimizer state and hyperparameters; an update
        then uses the mean of the ranks' gradients.  All ranks must call it, and run the same steps.
        PefMismatchError when they have different programs, OptionError when this one was not
        compiled for data parallel.
        """
        if self._replicas is not None:
            return
        self.require_data_parallel()
        # Only these programs need what keeps ranks together.
        from batucada.runtime.group import world_size
        from batucada.runtime.replicas import Replicas, check_same_program, share_values

        if world_size() == 1 or not self.training:
            return
        if self._gradients == "recomputable":
            self._keep_gradients()
        check_same_program(self.manifest)
        share_values(self)
        self._replicas = Replicas(self)
        self._replicas.reduced = self._gradients != "stored"
        for symbol in self.manifest.of_role("tangent", "gradient"):
            self.view(symbol.name).div_(self._replicas.size)

    def require_data_parallel(self) -> None:
        """OptionError when this program trains and cannot reduce its gradients."""
        if self.training and self.manifest.replicas is None:
            raise OptionError(
                f"{self.pef.path} was compiled without --data-parallel, so its gradients cannot be"
                " reduced over replicas; compile it with --data-parallel -ws 2"
            )

    def _call(self, entry: str) -> None:
        function = self._entries.get(entry)
        code = function(self._address) if function is not None else 0
        if code:
            self._fail(code)

    def loop(
        self, names: Sequence[str], tensors: Sequence[torch.Tensor], steps: int
    ) -> tuple[Result, ...]:
        """`steps` whole steps on the same inputs in one native call; the last one's outputs."""
        if steps < 1:
            raise InputError(f"a loop needs at least one step, not {steps}")
        if self._one_by_one():
            return [self.run(names, tensors) for _ in range(steps)][-1]
        self._bind(names, tensors)
        results = self._memory.record(self._table)
        return self._finished(results, self._call_loop({}, steps))

    def run_steps(
        self,
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
        hyper: Mapping[str, float] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """A whole step for each batch, in one native call.

        The first dimension of every tensor counts the steps: [steps, *shape of the input].  The
        results are [steps, *shape of the output], of every output in order: the numbers of a `run`
        for each batch.  Where a step fails, those before it have been made.
        """
        batches = Batches(self.symbols, names, tensors)
        outputs = batches.outputs(self.manifest.of_role("output"))
        if batches.steps == 0:
            return outputs
        numbers = self._numbers(hyper or {})
        self._set_hyper(numbers)  # a momentum that is new here is a matter of the host
        if self._one_by_one():
            for step in range(batches.steps):
                results = self.run(batches.names, batches.at(step), None, numbers)
                for output, result in zip(outputs, results, strict=True):
                    output[step].copy_(result.tensor())
            return outputs
        self._bind(batches.names, batches.at(0))
        results = self._memory.record(self._table)
        for result, output in zip(results, outputs, strict=True):
            self._table[result.symbol.slot] = output.data_ptr()
        code = self._call_loop(batches.strides(results, outputs), batches.steps)
        self._bind(batches.names, batches.at(batches.steps - 1))
        for result, output in zip(results, outputs, strict=True):
            result.tensor().copy_(output[-1])
        self._finished(results, code)
        return outputs

    def _one_by_one(self) -> bool:
        """Whether steps cannot be made by the native loop."""
        stepwise = self._momentum_on_host or self._replicas is not None
        return stepwise or self._default is not None or bool(self._host)

    def _call_loop(self, strides: Mapping[str, int], steps: int) -> int:
        """Every slot moves by its stride, in bytes, from step to step."""
        slots = {record.name: slot for slot, record in enumerate(self.manifest.slots)}
        moves = (ctypes.c_int64 * len(self._table))()
        for name, distance in strides.items():
            moves[slots[name]] = distance
        for name, slot in slots.items():  # a sweep reads and writes the next step's as well
            if name.endswith("__next"):
                base = slots[name.removesuffix("__next")]
                moves[slot] = moves[base]
                self._table[slot] = self._table[base] + moves[base]
        return self._loop(self._address, ctypes.addressof(moves), steps)

    def _fail(self, code: int) -> None:
        self._gradients = "none"
        self._forward = None
        if code < 0:
            sites = self.manifest.report.get("sites", [])
            site = sites[-1 - code] if -1 - code < len(sites) else f"code {code}"
            raise AssertionError(f"a checked kernel left its buffer: {site}")
        check = next(c for c in self.manifest.report["checks"] if c["code"] == code)
        raise range_error(check, dict(zip(self._held_names, self._held, strict=True)))

    # ---- gradients that a whole step did not store

    def _keep_gradients(self) -> None:
        """Store the last whole step's gradients while what they are made of is still there.

        The step itself does not store those that only its update reads.
        """
        if self._inputs_changed():
            self._gradients = "lost"
            return
        self._call("regrad")
        self._gradients = "stored"

    def _inputs_changed(self) -> bool:
        """Filled again, or given other memory, since the run."""
        addresses = [self._table[slot] for slot in self._slots]
        return [tensor._version for tensor in self._held] != self._versions or [
            tensor.data_ptr() for tensor in self._held
        ] != addresses


def load_native(code: bytes) -> NativeModule:
    """PefError when the object code cannot be loaded here."""
    try:
        return NativeModule.load(code)
    except OSError as error:
        raise PefError(f"the object code cannot be loaded: {error}") from None
