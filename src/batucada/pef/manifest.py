"""What a PEF says of itself: `manifest.json` as frozen records, checked on the way in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from batucada.errors import PefError
from batucada.ir.types import ITEM_BYTES, DType
from batucada.pef.typed_json import from_json, to_json

FORMAT_VERSION = 9
"""Raised by one whenever a field is added, removed or means something else."""

Role = Literal[
    "input", "parameter", "buffer", "constant", "state", "tangent", "hyper", "output", "gradient"
]
SectionType = Literal["FWD", "BCKWD", "GRADNORM", "REDUCE", "OPT"]


@dataclass(frozen=True)
class ProducerRecord:
    """Versions of what wrote the PEF."""

    batucada: str
    torch: str


@dataclass(frozen=True)
class SlotRecord:
    """An entry of the address table that native code is given: `bytes` of memory lie behind it."""

    name: str
    bytes: int


@dataclass(frozen=True)
class SymbolRecord:
    """A named tensor of the program and where it lives.

    `storage` is the permutation of dimensions in which it is stored, () for row-major; with a
    `panel`, so many columns of the last of these dimensions are stored one behind another; `slot`
    indexes the address table and `offset` counts bytes from there; `target` is the module path of a
    parameter or buffer, else ''; `of` is the symbol that a tangent, gradient or state belongs to,
    else ''; `default` is the compile-time value of a hyperparameter, else None.  With `is_complex`
    PyTorch's tensor is complex, and the last dimension here, of 2, are its parts.
    """

    name: str
    role: Role
    dtype: DType
    shape: tuple[int, ...]
    storage: tuple[int, ...] = ()
    slot: int = 0
    offset: int = 0
    target: str = ""
    of: str = ""
    default: float | None = None
    panel: int = 0
    is_complex: bool = False

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return self.shape[:-1] if self.is_complex else self.shape

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class StageRecord:
    """One fused loop nest: `flops` and bytes are of one run; `sources` are file:line."""

    name: str
    kind: str
    ops: tuple[str, ...]
    kernel: str
    flops: int
    bytes_read: int
    bytes_written: int
    parallel: bool
    sources: tuple[str, ...]


@dataclass(frozen=True)
class SectionRecord:
    """A part of the program that is started as one unit: names of its stages, in order."""

    type: SectionType
    stages: tuple[str, ...]


@dataclass(frozen=True)
class EntryRecord:
    """A way into the program: names of its `stages`, and its `parts` in order, each a native
    function or a host stage."""

    parts: tuple[str, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class PlaceRecord:
    """A dense tensor in memory: `slot` of the address table and `offset` in bytes from there."""

    dtype: DType
    shape: tuple[int, ...]
    slot: int
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class HostRecord:
    """A stage that PyTorch runs: the operator `target`, its arguments as `form` (see
    `ops/host.py`) over the tensors `args`; `results` are places by number of the result.
    """

    target: str
    form: str
    args: tuple[PlaceRecord, ...]
    results: dict[str, PlaceRecord]
    source: str


@dataclass(frozen=True)
class BucketRecord:
    """Memory that replicas reduce in one go, when the entry `after` has run: gradients one behind
    another.  The entry `update` is the part of OPT that needs this bucket and those before it."""

    place: PlaceRecord
    gradients: tuple[str, ...]
    after: str
    update: str | None = None


@dataclass(frozen=True)
class ReplicaRecord:
    """What replicas do together: `backward` are the entries that BCKWD is cut into, each followed
    by the buckets that are full then; `followed` is memory in which all take over what rank 0 has.
    """

    backward: tuple[str, ...]
    buckets: tuple[BucketRecord, ...]
    followed: PlaceRecord | None = None


@dataclass(frozen=True)
class OptimizerRecord:
    """An optimizer: its class, its options as JSON values (lists, no tuples), what it updates."""

    class_name: str
    options: dict[str, Any]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class TargetRecord:
    """The processor that the object code needs."""

    triple: str
    level: str
    vector_bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime and a reader know of a program; `members` is filled by `write_pef`.

    `stages` holds every stage once; sections and entries name them, and a stage that only a fused
    entry runs is in no section.  `slots` is the address table.  `host` holds, by name, the stages
    that PyTorch runs.  `replicas` is there in a program that was compiled for data parallel.
    `hyperparameters` holds the compile-time value of each.  `report` is free JSON.
    """

    producer: ProducerRecord
    name: str
    training: bool
    trace_hash: str
    symbols: tuple[SymbolRecord, ...]
    stages: tuple[StageRecord, ...]
    sections: tuple[SectionRecord, ...]
    entries: dict[str, EntryRecord]
    slots: tuple[SlotRecord, ...]
    target: TargetRecord
    hyperparameters: dict[str, float] = field(default_factory=dict)
    host: dict[str, HostRecord] = field(default_factory=dict)
    replicas: ReplicaRecord | None = None
    optimizers: tuple[OptimizerRecord, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @cached_property
    def symbol_by_name(self) -> dict[str, SymbolRecord]:
        return {symbol.name: symbol for symbol in self.symbols}

    @cached_property
    def stage_by_name(self) -> dict[str, StageRecord]:
        return {stage.name: stage for stage in self.stages}

    def of_role(self, *roles: Role) -> tuple[SymbolRecord, ...]:
        """The symbols that have one of `roles`, in order."""
        return tuple(symbol for symbol in self.symbols if symbol.role in roles)


def manifest_text(manifest: Manifest) -> str:
    """The manifest as JSON text.  PefError when it contradicts itself."""
    _check(manifest)
    fields = (f"{json.dumps(k)}: {_json_text(v)}" for k, v in to_json(manifest).items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _json_text(value: Any) -> str:
    """A list with a line for each item."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, allow_nan=False)
    return "[\n " + ",\n ".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"


def parse_manifest(text: str) -> Manifest:
    """Inverse of `manifest_text`; PefError names what is wrong."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PefError(f"manifest.json is not valid JSON: {error}") from None
    _check_version(value)
    manifest = from_json(Manifest, value, "manifest")
    _check(manifest)
    return manifest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _check_version(value: Any) -> None:
    version = value.get("format_version") if isinstance(value, dict) else None
    if type(version) is not int:
        raise PefError("manifest.json holds no format_version: this is not a PEF of Batucada")
    if version != FORMAT_VERSION:
        age = "newer" if version > FORMAT_VERSION else "older"
        raise PefError(
            f"the PEF has the {age} format version {version}; this Batucada reads version "
            f"{FORMAT_VERSION}: compile the model again, or install the matching Batucada"
        )


def _check(manifest: Manifest) -> None:
    """What types do not say: names are unique and resolve, and symbols lie in their memory."""
    if len(manifest.symbol_by_name) != len(manifest.symbols):
        raise PefError("manifest.symbols: two symbols have the same name")
    for symbol in manifest.symbols:
        _check_symbol(symbol, manifest)
    if len(manifest.stage_by_name) != len(manifest.stages):
        raise PefError("manifest.stages: two stages have the same name")
    for section in manifest.sections:
        _check_names(f"sections.{section.type}", section.stages, manifest.stage_by_name)
    _check_names("host", tuple(manifest.host), manifest.stage_by_name)
    for name, record in manifest.host.items():
        for place in (*record.args, *record.results.values()):
            _check_place(f"manifest.host: {name!r}", place, manifest)
    for name, entry in manifest.entries.items():
        _check_names(f"entries.{name}", entry.stages, manifest.stage_by_name)
    if manifest.replicas is not None:
        _check_replicas(manifest.replicas, manifest)
    for optimizer in manifest.optimizers:
        _check_names("optimizers", optimizer.parameters, manifest.symbol_by_name)


def _check_replicas(replicas: ReplicaRecord, manifest: Manifest) -> None:
    _check_names("replicas.backward", replicas.backward, manifest.entries)
    if replicas.followed is not None:
        _check_place("manifest.replicas.followed", replicas.followed, manifest)
    for bucket in replicas.buckets:
        _check_names("replicas.buckets", bucket.gradients, manifest.symbol_by_name)
        entries = (bucket.after, bucket.update or bucket.after)
        _check_names("replicas.buckets", entries, manifest.entries)
        _check_place("manifest.replicas.buckets", bucket.place, manifest)


def _check_names(where: str, names: tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise PefError(f"manifest.{where}: there is no {name!r}")


def _check_symbol(symbol: SymbolRecord, manifest: Manifest) -> None:
    where = f"manifest.symbols: {symbol.name!r}"
    if any(extent < 0 for extent in symbol.shape):
        raise PefError(f"{where} has the shape {symbol.shape}")
    if symbol.storage and sorted(symbol.storage) != list(range(len(symbol.shape))):
        raise PefError(f"{where}: storage {symbol.storage} does not permute shape {symbol.shape}")
    columns = symbol.shape[symbol.storage[-1] if symbol.storage else -1] if symbol.shape else 0
    if symbol.panel and (symbol.panel < 0 or not columns or columns % symbol.panel):
        raise PefError(f"{where}: panels of {symbol.panel} do not divide shape {symbol.shape}")
    if symbol.is_complex and symbol.shape[-1:] != (2,):
        raise PefError(f"{where}: complex numbers have two parts, the shape is {symbol.shape}")
    _check_place(where, symbol, manifest)
    if symbol.of and symbol.of not in manifest.symbol_by_name:
        raise PefError(f"{where} belongs to {symbol.of!r}, which is no symbol")


def _check_place(where: str, place: SymbolRecord | PlaceRecord, manifest: Manifest) -> None:
    if not 0 <= place.slot < len(manifest.slots) or place.offset < 0:
        raise PefError(f"{where}: slot {place.slot}, offset {place.offset} is outside the table")
    slot, end = manifest.slots[place.slot], place.offset + place.bytes
    if end > slot.bytes:
        raise PefError(f"{where} ends at byte {end} of slot {slot.name!r}, which has {slot.bytes}")
