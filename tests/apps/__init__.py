"""Whole programs, run as their users run them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_program(path: Path) -> ModuleType:
    """The program as a module, with its folder first on the path as Python does for a script."""
    sys.path.insert(0, str(path.parent))
    try:
        return importlib.import_module(path.stem)
    finally:
        sys.path.remove(str(path.parent))
