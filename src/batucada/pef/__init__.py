"""The artifact: a PEF is one zip file that holds a compiled program.  Nothing in it is pickled."""

from batucada.pef.archive import Packed
from batucada.pef.manifest import (
    FORMAT_VERSION,
    BucketRecord,
    EntryRecord,
    HostRecord,
    Manifest,
    OptimizerRecord,
    PlaceRecord,
    ProducerRecord,
    ReplicaRecord,
    SectionRecord,
    SlotRecord,
    StageRecord,
    SymbolRecord,
    TargetRecord,
)
from batucada.pef.read import Pef, read_pef
from batucada.pef.write import pack_members, write_pef

__all__ = [
    "FORMAT_VERSION",
    "BucketRecord",
    "EntryRecord",
    "HostRecord",
    "Manifest",
    "OptimizerRecord",
    "Packed",
    "Pef",
    "PlaceRecord",
    "ProducerRecord",
    "ReplicaRecord",
    "SectionRecord",
    "SlotRecord",
    "StageRecord",
    "SymbolRecord",
    "TargetRecord",
    "pack_members",
    "read_pef",
    "write_pef",
]
