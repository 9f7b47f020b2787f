"""Where in the user's files something comes from."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator

import torch

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_FACE = os.path.join(os.path.dirname(_OURS), "sambaflow")
_LIBRARIES = (
    os.path.dirname(os.path.abspath(torch.__file__)) + os.sep,
    _OURS + os.sep,
    _FACE + os.sep,
    os.path.dirname(os.__file__) + os.sep,
)


def user_line(frames: Iterable[tuple[str, int]]) -> str:
    """`file:line` of the first frame that is neither PyTorch's, Python's nor ours."""
    for filename, line in frames:
        if not _is_of_library(filename):
            return sys.intern(f"{_shown(filename, os.getcwd())}:{line}")
    return "?"


@functools.lru_cache(maxsize=1024)
def _is_of_library(filename: str) -> bool:
    return filename.startswith((*_LIBRARIES, "<"))


@functools.lru_cache(maxsize=1024)
def _shown(filename: str, folder: str) -> str:
    """Relative to `folder` if it is in there."""
    near = os.path.abspath(filename).startswith(folder + os.sep)
    return os.path.relpath(filename) if near else filename


def frames_here() -> Iterator[tuple[str, int]]:
    """File and line of every frame, from the caller outwards."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def functional_here() -> str:
    """The function of torch.nn.functional that the user called, if this runs inside one."""
    name, frame = "", sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        if frame.f_code.co_filename == torch.nn.functional.__file__:
            name = frame.f_code.co_name
        frame = frame.f_back
    return name
