"""`flex_attention` while a model is captured.

What its functions do to the scores is looked at: where they add to them and leave some out, it is
the attention of `ops/attention.py` with a mask, else PyTorch's plain expression of it.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import _disable_current_modes

from batucada.capture.attention import attended
from batucada.capture.dtypes import type_of
from batucada.capture.recorder import Recorder
from batucada.ir.graph import Node, input_node, postorder

Tensor = torch.Tensor


@contextmanager
def flexible_attention(recorder: Recorder) -> Iterator[None]:
    """The function is held under any name, and compiled: so its code is replaced."""
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    if flex is None:
        yield
        return
    from torch._dynamo import _trace_wrapped_higher_order_op as indexing

    entry = flex.flex_attention
    code, form = entry.__code__, _form(flex, recorder)
    with (
        patch.object(indexing, "mod_index", torch.ops.aten.index.Tensor),
        patch.object(flex, "_of_a_capture", form, create=True),
    ):
        entry.__code__ = _entry.__code__
        try:
            yield
        finally:
            entry.__code__ = code


def _entry(
    query: Any, key: Any, value: Any, score_mod: Any, block_mask: Any, scale: Any,
    enable_gqa: Any, return_lse: Any, kernel_options: Any, *, return_aux: Any,
) -> Any:  # fmt: skip
    """Runs with the globals and the defaults of PyTorch's function."""
    return globals()["_of_a_capture"](
        query, key, value, score_mod, block_mask, scale, enable_gqa, return_lse, kernel_options,
        return_aux=return_aux,
    )  # fmt: skip


def _form(flex: ModuleType, recorder: Recorder) -> Any:
    """PyTorch's function, with its checks, around `_attention`."""
    names = {
        "flex_attention_hop": functools.partial(_attention, flex, recorder),
        "setup_compilation_env": nullcontext,
        "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG": True,  # it would compile itself
        "_validate_device": lambda *_: None,  # tensors without data are on none that it knows
    }
    code = flex.flex_attention.__code__
    original = FunctionType(code, {**vars(flex), **names}, "flex_attention")

    def form(
        query: Tensor, key: Tensor, value: Tensor, score_mod: Any, block_mask: Any, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        beside = None if block_mask is None else block_mask.to(query.device)
        return original(query, key, value, score_mod, beside, *args, **kwargs)

    return form


def _attention(
    flex: ModuleType, recorder: Recorder, query: Tensor, key: Tensor, value: Tensor,
    score_mod: Any, block_mask: tuple[Any, ...], scale: float, options: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The output, the logarithm to base 2 of the sum of each row, and its greatest score."""
    from torch._higher_order_ops.flex_attention import math_attention

    is_alike = query.dtype == key.dtype == value.dtype and query.numel() and key.numel()
    mask = None
    if is_alike and not options["OUTPUT_MAX"]:
        mask = _mask(flex, recorder, (*query.shape[:3], key.shape[2]), query, score_mod, block_mask)
    if mask is None:
        found = math_attention(query, key, value, score_mod, block_mask, scale, options)
        return *found[:2], found[2].detach()
    key, value = (x.expand(query.shape[0], -1, -1, -1) for x in (key, value))
    out, lse = attended(query, key, value, *mask, scale)
    lse = torch.where(lse == torch.inf, -torch.inf, lse)  # of a row without any key
    return out, lse / math.log(2), lse


def _mask(
    flex: ModuleType, recorder: Recorder, shape: tuple[int, ...], query: Tensor, score_mod: Any,
    block_mask: tuple[Any, ...],
) -> tuple[Tensor | None, bool] | None:  # fmt: skip
    """What is added to scores of this `shape`, or which of them are seen, and whether all of that
    is causal; None where the functions do more than that, or something is to be learned.
    """
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = torch.empty(shape, dtype=dtype, device="meta")
    start = input_node("scores", type_of(scores), "input")
    recorder.own(scores, start)
    places = [torch.arange(extent) for extent in shape]
    with TransformGetItemToIndex():
        changed = flex._vmap_for_bhqkv(score_mod, prefix=(0,))(scores, *places)
        seen = flex._vmap_for_bhqkv(block_mask[-1], prefix=())(*places)
    terms = None if changed.requires_grad else _terms(recorder.node_of(changed), start)
    if terms is None or changed.dtype != dtype:
        return None
    seen = seen[tuple(slice(1 if step == 0 else None) for step in seen.stride())]
    bias: Tensor | None = None
    for node in terms:
        term = recorder.standing_for(node)
        if term.dtype == torch.bool:
            seen = seen & term
        else:
            bias = term if bias is None else bias + term
    with _disable_current_modes():
        known = recorder.value_of(seen)
        causal = known is not None and _is_causal(known)
        whole = known is not None and bool(known.all())
    if bias is None:
        return None if whole or causal else seen, causal
    if not whole and not causal:
        bias = torch.where(seen, bias, -torch.inf)
    return bias[(None,) * (4 - bias.dim())], causal


def _is_causal(seen: Tensor) -> bool:
    return seen.shape[:2] == (1, 1) and torch.equal(seen, torch.ones_like(seen).tril())


def _terms(node: Node, scores: Node) -> list[Node] | None:
    """Of `scores + a + where(b, ..., -inf)`: a and the bool b, none of which depends on them."""
    terms: list[Node] = []
    while node is not scores:
        if node.op == "add":
            term, node = node.args if scores in postorder([node.args[1]]) else node.args[::-1]
        elif node.op == "where" and _is_minus_infinity(node.args[2]):
            term, node = node.args[:2]
        else:
            return None
        if scores in postorder([term]):
            return None
        terms.append(term)
    return terms


def _is_minus_infinity(node: Node) -> bool:
    return node.op == "constant" and dict(node.attrs)["value"] == -math.inf
