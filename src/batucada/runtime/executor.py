"""Runs a PEF: binds names to addresses once, then calls native code with the interpreter lock
released.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from safetensors.torch import load as load_tensors

from batucada.errors import InputError, PefError
from batucada.ir.graph import identifier
from batucada.pef import Pef, SymbolRecord
from batucada.runtime.inputs import check_names, fitted, number, range_error, tracked
from batucada.runtime.momentum import HostMomentum
from batucada.runtime.native import NativeModule, ThreadPool
from batucada.runtime.results import Result, ResultMemory, aligned_block, torch_dtype

SECTION_ORDER = ("FWD", "BCKWD", "GRADNORM", "REDUCE", "OPT")
_POOL_SLOT = 1
_WHOLE_STEP = {"FWD", "BCKWD", "GRADNORM", "OPT"}


class Executor:
    """A loaded program: its native code, its memory, and its copy of parameters and optimizer
    state.
    """

    def __init__(self, pef: Pef, native: NativeModule, threads: int = 1) -> None:
        self.pef = pef
        self.manifest = pef.manifest
        self.training = pef.manifest.training
        self.symbols: dict[str, SymbolRecord] = dict(pef.manifest.symbol_by_name)
        self._native = native
        self._table = (ctypes.c_int64 * len(pef.manifest.slots))()
        self._address = ctypes.addressof(self._table)
        self._blocks: dict[int, np.ndarray] = {}
        self._allocate()
        entries = pef.manifest.entries
        self._entries = {
            n: native.function(e.function, ctypes.c_void_p) for n, e in entries.items()
        }
        self._step = self._entries["step"]
        self._loop = native.function("loop", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._views: dict[str, torch.Tensor] = {}
        self._inputs = {
            s.name: (s.slot, torch_dtype(s), torch.Size(s.shape), s)
            for s in pef.manifest.of_role("input")
        }
        self.input_names = tuple(self._inputs)
        self._memory = ResultMemory(pef.manifest.of_role("output"))
        self._results: tuple[Result, ...] = ()
        # The last run's inputs, whose addresses are in these slots of the table.
        self._held: list[torch.Tensor] = []
        self._held_names: Sequence[str] = ()
        self._slots: list[int] = []
        self._versions: list[int] = []
        self._default: set[str] | None = None  # what a run without sections runs; None: all
        self._gradients = "none"  # none, stored, recomputable from the last run's values, lost
        self._forward_done = False
        self._set_defaults(pef)
        self._momentum = HostMomentum(self.manifest, self.view)
        self._momentum_on_host = False
        self._pool = self._start_pool(threads)

    # ---- memory

    def _allocate(self) -> None:
        names = [record.name for record in self.manifest.slots]
        for slot in (names.index("arena"), names.index("memory")):  # before inputs of these names
            block, address = aligned_block(max(self.manifest.slots[slot].bytes, 1), zero=True)
            self._blocks[slot] = block
            self._table[slot] = address

    def _start_pool(self, threads: int) -> ThreadPool | None:
        if threads < 2 or not any(stage.parallel for stage in self.manifest.stages):
            return None
        pool = ThreadPool(threads, self._native)
        self._table[_POOL_SLOT] = pool.address
        return pool

    def _set_defaults(self, pef: Pef) -> None:
        self.hyperparameters: dict[str, float] = {}
        self._scalars: dict[str, list[ctypes.c_float]] = {}
        self._given_hyper: dict[str, float] = {}  # the last ones, which need not be set again
        for symbol in self.manifest.of_role("tangent"):
            self.view(symbol.name).fill_(symbol.default or 0.0)
        for optimizer in self.manifest.optimizers:
            for group in optimizer.options["groups"]:
                for key, name in group["hyper"].items():
                    self._bind_hyper(key, name, optimizer.options["region"])
        for name, value in self._constants(pef).items():
            self.view(name).copy_(value)

    def _bind_hyper(self, key: str, name: str, region: str) -> None:
        default = self.manifest.hyperparameters[name]
        symbol = self.symbols[name]
        scalar = ctypes.c_float.from_address(self._table[symbol.slot] + symbol.offset)
        scalar.value = default
        for known in (key, f"{region}{key}") if region else (key,):
            self._scalars.setdefault(known, []).append(scalar)
            self.hyperparameters.setdefault(known, default)

    @staticmethod
    def _constants(pef: Pef) -> dict[str, torch.Tensor]:
        member = "constants.safetensors"
        return load_tensors(pef.member(member)) if member in pef.names else {}

    def view(self, name: str) -> torch.Tensor:
        """The program's own memory of a symbol, in the shape that PyTorch gives it."""
        if name not in self._views:
            symbol = self.symbols[name]
            block = self._blocks[symbol.slot][symbol.offset : symbol.offset + symbol.bytes]
            stored = symbol.shape
            if symbol.storage:
                stored = tuple(symbol.shape[d] for d in symbol.storage)
            tensor = torch.from_numpy(block).view(torch_dtype(symbol)).view(stored)
            if symbol.storage:
                tensor = tensor.permute([symbol.storage.index(d) for d in range(len(stored))])
            self._views[name] = tensor
        return self._views[name]

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
            self._given_hyper = dict(hyper or {})
        if wanted is None and self._momentum_on_host:
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
        self._forward_done = True
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
        if "BCKWD" in asked and "FWD" not in asked and not self._forward_done:
            raise InputError("section BCKWD needs the values of FWD; run FWD first")
        updates = sorted(asked & {"GRADNORM", "OPT"})
        if updates and "BCKWD" not in asked and self._gradients != "stored":
            raise InputError(f"section {updates[-1]} needs the gradients of BCKWD; run BCKWD first")
        return asked

    def _run_sections(self, wanted: set[str]) -> tuple[Result, ...]:
        if "FWD" in wanted:
            self._results = self._memory.record(self._table)
            self._call("fwd")
            self._forward_done = True
        if "BCKWD" in wanted:
            self._gradients = "none"
            self._call("bckwd")
            self._gradients = "stored"
        if "GRADNORM" in wanted or "OPT" in wanted:
            self._call("gradnorm")
        if "OPT" in wanted and self._momentum_on_host:
            self._momentum.around(lambda: self._call("opt"))
        elif "OPT" in wanted:
            self._call("opt")
        return self._results

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
        if self._momentum_on_host or self._default is not None:
            for _ in range(steps):
                results = self.run(names, tensors)
            return results
        self._bind(names, tensors)
        results = self._memory.record(self._table)
        slots = {record.name: slot for slot, record in enumerate(self.manifest.slots)}
        for name, slot in slots.items():  # a sweep reads and writes the next step's as well
            if name.endswith("__next"):
                self._table[slot] = self._table[slots[name.removesuffix("__next")]]
        strides = (ctypes.c_int64 * len(self._table))()
        return self._finished(results, self._loop(self._address, ctypes.addressof(strides), steps))

    def _fail(self, code: int) -> None:
        self._gradients = "none"
        self._forward_done = False
        if code < 0:
            sites = self.manifest.report.get("sites", [])
            site = sites[-1 - code] if -1 - code < len(sites) else f"code {code}"
            raise AssertionError(f"a checked kernel left its buffer: {site}")
        check = next(c for c in self.manifest.report["checks"] if c["code"] == code)
        raise range_error(check, dict(zip(self._held_names, self._held, strict=True)))

    # ---- hyperparameters and gradients

    def _numbers(self, hyper: Mapping[str, float]) -> dict[str, float]:
        """Names that the program does not use are legal: programs pass what some models need."""
        return {name: number(name, v) for name, v in hyper.items() if name in self._scalars}

    def _set_hyper(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            for scalar in self._scalars[name]:
                scalar.value = value
        self.hyperparameters.update(numbers)
        if any(name.endswith("momentum") for name in numbers):
            self._momentum_on_host = self._momentum.active

    def set_output_gradient(self, output_index: int, grad: torch.Tensor | None) -> None:
        """What starts the backward pass at this output from the next run on; None for the
        default.
        """
        outputs = self.manifest.of_role("output")
        if not 0 <= output_index < len(outputs):
            raise InputError(
                f"the program has {len(outputs)} outputs; there is no output {output_index}"
            )
        name = f"{outputs[output_index].name}__grad"
        if name not in self.symbols:
            raise InputError(
                f"output {output_index} ({outputs[output_index].name}) takes no gradient here"
            )
        if self._gradients == "recomputable":
            self._keep_gradients()  # those of the last run began with the old values
        target = self.view(name)
        if grad is None:
            target.fill_(self.symbols[name].default or 0.0)
            return
        if not isinstance(grad, torch.Tensor):
            raise InputError(
                f"the gradient of output {output_index} is a {type(grad).__name__}, not a tensor"
            )
        if grad.numel() != target.numel():
            raise InputError(
                f"the gradient of output {output_index} has shape {tuple(grad.shape)};"
                f" the output has {tuple(target.shape)}"
            )
        target.copy_(grad.detach().reshape(target.shape))

    def gradient(self, symbol: str) -> torch.Tensor:
        """A copy of the gradient of a parameter or input in the last run that held BCKWD."""
        name = f"{symbol}__grad"
        if name not in self.symbols or self.symbols[name].role != "gradient":
            raise InputError(f"the program computes no gradient of {symbol!r}")
        if self._gradients == "none":
            raise InputError(f"no run with BCKWD has been made, so {symbol!r} has no gradient yet")
        if self._gradients == "recomputable":
            self._keep_gradients()
        if self._gradients == "lost":
            raise InputError(
                "an input tensor was changed after the run; read gradients before filling it again"
            )
        return self.view(name).clone(memory_format=torch.contiguous_format)

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

    # ---- reading and writing symbols

    def read(self, symbol: str) -> torch.Tensor:
        """A copy of the program's value of a symbol."""
        record = self._record(symbol)
        if record.role == "gradient":
            return self.gradient(record.of)
        if record.role == "output":
            found = next((r for r in self._results if r.name == symbol), None)
            if found is None:
                raise InputError(f"the output {symbol!r} has no value before the first run")
            return found.tensor().clone()
        if record.role == "input":
            if not self._held:
                raise InputError(f"the input {symbol!r} has no value before the first run")
            return self._held[list(self._held_names).index(symbol)].reshape(record.shape).clone()
        return self.view(symbol).clone(memory_format=torch.contiguous_format)

    def write(self, symbol: str, value: torch.Tensor) -> None:
        """Set a parameter, buffer, state or constant of the program."""
        record = self._record(symbol)
        if record.role not in ("parameter", "buffer", "state", "constant"):
            raise InputError(f"{symbol!r} is an {record.role}; it cannot be written")
        target = self.view(symbol)
        if value.shape != target.shape:
            raise InputError(
                f"{symbol!r} has shape {tuple(target.shape)}, the value {tuple(value.shape)}"
            )
        if self._gradients == "recomputable":
            self._keep_gradients()
        target.copy_(value.detach())

    def _record(self, symbol: str) -> SymbolRecord:
        if symbol not in self.symbols:
            raise InputError(f"the program has no symbol {symbol!r}")
        return self.symbols[symbol]


def load_native(code: bytes) -> NativeModule:
    """PefError when the object code cannot be loaded here."""
    try:
        return NativeModule.load(code)
    except OSError as error:
        raise PefError(f"the object code cannot be loaded: {error}") from None
