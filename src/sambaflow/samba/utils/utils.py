"""`trace_graph` and its companions, at the module path where SambaFlow defines them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from batucada.errors import OptionError
from sambaflow.absent import absent
from sambaflow.logging import no_effect
from sambaflow.samba.random import set_seed
from sambaflow.samba.session import session
from sambaflow.samba.utils import argparser
from sambaflow.samba.utils.compare import assert_close

__all__ = [
    "assert_close", "get_file_dir", "init_output_grads", "set_seed", "trace_graph",
    "trace_multigraph",
]  # fmt: skip

trace_multigraph = absent(
    "samba.utils.trace_multigraph",
    "a PEF holds one graph; compile and trace each model by itself",
)

# Arguments that this or that release takes and that say how an RDU would be used.
_ACCEPTED = {"squeeze_bs_dim", "distlearn_config", "dev_mode", "data_parallel", "reduce_on_rdu"}


def get_file_dir(file: str) -> str:
    """The folder of a file, absolute."""
    return os.path.dirname(os.path.abspath(file))


def trace_graph(
    model: nn.Module,
    inputs: Any,
    optim: Any = None,
    init_output_grads: bool = True,
    loss_indices: Sequence[Any] | None = None,
    pef: str = "",
    mapping: str = "section",
    data_parallel_mode: str = "normal",
    transfer_device: bool = True,
    config_dict: Mapping[str, Any] | None = None,
    **options: Any,
) -> Sequence[Any]:
    """Load a PEF, check that it was compiled from `model`, and copy the model to the device.

    The PEF is `pef`, else the one of `config_dict`, else of the command line.  Returns the traced
    outputs, which are also `model.output_tensors`.  With `transfer_device=False` nothing is copied
    until `samba.session.to_device()`.
    """
    unknown = options.keys() - _ACCEPTED
    if unknown:
        raise OptionError(f"trace_graph has no argument {', '.join(sorted(unknown))}")
    if mapping not in ("section", "spatial"):
        raise OptionError(f"mapping is {mapping!r}; expected 'section' or 'spatial'")
    path = pef or (config_dict or {}).get("pef") or argparser.current_settings().get("pef")
    if not path:
        raise OptionError("trace_graph: which PEF? Give pef=..., or --pef on the command line")
    settings = argparser.current_settings()
    asked = options.get("data_parallel", settings.get("data_parallel"))
    outputs = session.trace(model, inputs, optim, Path(path), transfer_device, bool(asked))
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    print(f"{now} : [INFO][LIB][{os.getpid()}]: sn_create_session: PEF File: {path}", flush=True)
    return outputs


def init_output_grads(
    output_tensors: Sequence[Any],
    unspecified_tensor_grad: Sequence[Any] = (),
    customized_tensors_dict: Mapping[str, Any] | None = None,
    is_variable_batch_size: bool = False,
) -> None:
    """Start the backward pass of each output named in `customized_tensors_dict` from its value.

    The others keep what drives them by default, the gradient of the mean loss.
    """
    for name, gradient in (customized_tensors_dict or {}).items():
        session.set_output_gradient(name, gradient)
    if is_variable_batch_size:
        no_effect("init_output_grads(is_variable_batch_size=True)", "shapes are static")
