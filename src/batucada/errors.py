"""Every error that Batucada raises on purpose.

    BatucadaError            a mistake that the user can put right; the message says how
    ├── CaptureError         the model cannot be captured; names the user's file:line
    │   └── UnsupportedOpError   ... because of one operation
    ├── OptionError          an argument, a knob or an environment variable makes no sense
    ├── InputError           what a run was given: a name, shape or dtype; missing, or given twice
    │   └── IndexRangeError      ... a class label or an index is out of range
    ├── ReplicaError         a process of several cannot join them, or one of them is lost
    │   └── LaunchError          ... what its launcher says of them makes no sense
    ├── HostStageError       an operator that PyTorch runs fails at run time
    ├── PefError             a PEF is missing, damaged, no PEF, too new, or for another target
    │   └── PefMismatchError     ... or was compiled from another model, batch size or dtype
    ├── OutputError          a result cannot be written: folder not writable, disk full
    ├── CheckpointError      a checkpoint is damaged, of another model, or used by another run
    └── DataError            a data file is missing or damaged

The message is one or several plain lines: what was wrong, where, and what to do about it.
The `batucada` command and SambaFlow programs print it without a traceback and exit with status 2.
Anything else that escapes is a defect of Batucada.
"""

from __future__ import annotations


class BatucadaError(Exception):
    """Base of every error that a user of Batucada can cause and put right."""


class CaptureError(BatucadaError):
    """The model cannot be captured as one static graph."""


class UnsupportedOpError(CaptureError):
    """The model uses an operation that neither has a kernel nor can run as a host stage."""


class OptionError(BatucadaError):
    """An argument, a knob or an environment variable has a value that makes no sense."""


class InputError(BatucadaError):
    """A tensor given to a run has a wrong name, shape or dtype, is missing, or came twice."""


class IndexRangeError(InputError):
    """A class label or an index in an input is outside the range that the program can address."""


class ReplicaError(BatucadaError):
    """A process cannot join the others of its job, or one of them is lost; names the rank."""


class LaunchError(ReplicaError):
    """What the launcher says in the environment contradicts itself or leaves something open."""


class HostStageError(BatucadaError):
    """An operator that PyTorch runs on the program's memory fails."""


class PefError(BatucadaError):
    """A PEF is missing, damaged, not a PEF, of a newer format version, or for another target."""


class PefMismatchError(PefError):
    """A PEF was compiled from another model, batch size or dtype than the one it is used with."""


class OutputError(BatucadaError):
    """A file or folder cannot be written."""


class CheckpointError(BatucadaError):
    """Checkpoints are damaged, belong to another model, or to a run that goes on."""


class DataError(BatucadaError):
    """A data set is missing or damaged."""
