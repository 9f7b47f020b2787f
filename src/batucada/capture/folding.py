"""Values that depend on no input of the program, found while it is captured.

What a model reads of them (`.item()`, an `if`, the length of `nonzero()`) is as fixed as its
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from batucada.capture.dtypes import torch_dtype
from batucada.ir.graph import Node, postorder
from batucada.ops import OPS

_MASKS = (torch.bool, torch.uint8)
_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_UNTAGGED = {torch.ops.aten._pack_padded_sequence.default}


def reads_values(func: Any) -> bool:
    """Its result or its result's shape depends on the values of its arguments."""
    return not _READS.isdisjoint(func.tags) or func in _UNTAGGED


def has_fixed_results(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """It may look at values, and does not for these arguments; or they have to fit: a run that
    counts a number from `minlength` on, or solves for a matrix of less than full rank and takes
    the residuals, ends in an error.
    """
    if func is torch.ops.aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is not None
    if func is torch.ops.aten.bincount.default:
        return _minlength(*args, **kwargs) > 0
    if func is torch.ops.aten.index.Tensor:
        return all(index is None or index.dtype not in _MASKS for index in args[1])
    return func is torch.ops.aten.linalg_lstsq.default


def _minlength(values: Any, weights: Any = None, minlength: int = 0) -> int:
    return minlength


def value_of(root: Node, constants: Mapping[Node, torch.Tensor]) -> torch.Tensor | None:
    """What `root` holds, None where that depends on an input, a weight or a state."""
    known: dict[Node, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in postorder([root]):
            if node in constants:
                known[node] = _array(constants[node])
            elif node.op in ("input", "host"):
                return None
            else:
                args = [known[arg] for arg in node.args]
                known[node] = np.asarray(OPS[node.op].ref(*args, **dict(node.attrs)))
    array = np.array(known[root], order="C").reshape(root.type.shape)  # one that may be written
    return torch.from_numpy(array).to(torch_dtype(root.type.dtype))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """As the reference functions compute: bfloat16 in float32."""
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return wide.detach().numpy()


def folded(func: Any, args: Any, kwargs: Any, value: Any) -> tuple[bool, Any]:
    """(True, the result of `func`) if `value(tensor)` knows each tensor among its arguments."""
    known = {id(t): value(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
    if any(tensor is None for tensor in known.values()):
        return False, None
    args, kwargs = tree_map(lambda leaf: known.get(id(leaf), leaf), (args, kwargs))
    return True, func(*args, **kwargs)


def positions(indices: Any, value: Any) -> list[torch.Tensor | None]:
    """The indices of `x[indices]` with the positions of its true elements for each known mask."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        mask = value(index) if index is not None and index.dtype in _MASKS else None
        found += [index] if mask is None else mask.nonzero(as_tuple=True)
    return found
