"""What a program writes into a PEF's metadata, and how it reads it again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import batucada
import sambaflow


@dataclass(frozen=True)
class PefInfoStruct:
    """A wanted entry of the metadata; `mock_value` stands in for it where there is no PEF."""

    mock_value: Any = None


def get_pefmeta(args: argparse.Namespace, model: nn.Module) -> dict[str, str]:
    """Every argument as text, the model's print, and the version: metadata of `session.compile`."""
    return get_pefmeta_dict(vars(args), model)


def get_pefmeta_dict(settings: Mapping[str, Any], model: nn.Module) -> dict[str, str]:
    """`get_pefmeta` of settings that are in a dict."""
    described = {str(key): str(value) for key, value in settings.items()}
    human = str(bool(settings.get("mac_human_decision")))
    return described | {
        "model": repr(model),
        "samba_version": sambaflow.__version__,
        "has_human_decision": human,
    }


def get_pef_info(pef: str, wanted: Mapping[str, PefInfoStruct]) -> dict[str, str]:
    """The entries `wanted` of a PEF's metadata; ValueError names one that is not there."""
    metadata = batucada.load(Path(pef)).manifest.metadata
    missing = [key for key in wanted if key not in metadata]
    if missing:
        raise ValueError(f"{pef}: the metadata holds no {', '.join(missing)}")
    return {key: metadata[key] for key in wanted}
