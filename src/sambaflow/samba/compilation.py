"""`session.compile`: from a program's arguments to a PEF in its folder, with the vendor's lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import batucada
from batucada.errors import OptionError
from sambaflow.logging import no_effect
from sambaflow.samba.running import write_text
from sambaflow.samba.traced import input_tree, optimizer_list

# Arguments of session.compile that say where an RDU would place or how it would schedule things.
_NO_EFFECT = ("metadata", "io_host_memory", "graph_transform_hook", "is_split_batch")
_SILENT = ("squeeze_bs_dim", "init_output_grads", "loss_indices", "inference")


def compile_model(
    model: nn.Module,
    inputs: Any,
    optimizers: Any,
    name: str | None,
    config_dict: Mapping[str, Any] | None,
    pef_metadata: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Any:
    """The `batucada` Compiled record; prints the compile's lines and writes its log."""
    config = _config(config_dict)
    _check_options(options)
    path = pef_path(config)
    log = path.with_suffix(".samba.log")
    write_text(log, "")
    print(f"[Info][SAMBA]# Placing log files in {log}", flush=True)
    args, kwargs = input_tree(model, inputs)
    forward_only = _is_inference(config, options)
    steps = _Steps()
    try:
        compiled = batucada.compile(
            model, args, kwargs, () if forward_only else optimizer_list(optimizers),
            path=path, name=name or type(model).__name__.lower(),
            loss_indices=_indices(options.get("loss_indices")),
            metadata=_strings(pef_metadata or {}), arguments=_strings(config),
            options=batucada.Options(data_parallel=bool(config.get("data_parallel"))),
            progress=steps,
        )  # fmt: skip
    finally:
        write_text(log, "".join(f"{line}\n" for line in steps.lines))
    _write_stats(config, compiled)
    if compiled.path is None:  # BATUCADA_STOP: the compiler was to stop before the PEF
        print("[info   ] Compilation stopped; no PEF was asked for.", flush=True)
        return compiled
    print("[info   ] Compilation succeeded.")
    print(f"[info   ] PEF file {compiled.path.absolute()} created", flush=True)
    return compiled


class _Steps:
    """Takes the compiler's progress: a line a step in the log, and on a terminal as it happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, step: str, seconds: float) -> None:
        self.lines.append(f"[info   ] {step:<12} {seconds:8.3f} s")
        if sys.stdout.isatty():
            print(self.lines[-1], flush=True)


def _config(config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
    if config_dict is not None:
        return dict(config_dict)
    from sambaflow.samba.utils import argparser

    return argparser.current_settings()


def pef_path(config: Mapping[str, Any]) -> Path:
    """`<output_folder>/<pef_name>/<pef_name>.pef`; a made-up name is the time and the process."""
    name = str(config.get("pef_name") or f"{time.strftime('%Y%m%d%H%M%S')}_{os.getpid()}")
    name = name.removesuffix(".pef")
    if not name or "/" in name or name in (".", ".."):
        raise OptionError(f"--pef-name {config.get('pef_name')!r} is not a file name")
    return Path(config.get("output_folder") or "out") / name / f"{name}.pef"


def _check_options(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if key in _NO_EFFECT and value:
            no_effect(f"samba.session.compile({key}=...)")
        elif key not in (*_NO_EFFECT, *_SILENT):
            raise OptionError(f"samba.session.compile has no argument {key!r}")


def _is_inference(config: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    explicit = options.get("inference")
    return bool(config.get("inference") if explicit is None else explicit)


def _indices(loss_indices: Any) -> Sequence[int] | None:
    """Outputs that are losses, given as numbers or as tuples of one number."""
    if loss_indices is None:
        return None
    return [index[0] if isinstance(index, tuple | list) else index for index in loss_indices]


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _write_stats(config: Mapping[str, Any], compiled: Any) -> None:
    target = config.get("compiled_stats_json")
    if target:
        write_text(Path(target), json.dumps(compiled.report, indent=1, default=str) + "\n")
