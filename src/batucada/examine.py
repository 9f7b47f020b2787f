"""Says of a model, before it is compiled, what will be native, what PyTorch will run, and what
cannot be captured.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from batucada.capture import Examined, NamedTensor, examine
from batucada.errors import OptionError
from batucada.ir.graph import Graph, Node
from batucada.ops import OPS, call_key
from batucada.passes.simplify import simplify


def examined(target: str, training: bool) -> tuple[str, bool]:
    """The report on the model of `target`, FILE.py:FUNCTION, and whether it can be compiled.

    The function returns (model, inputs), or a model whose `example_inputs` are the inputs: a
    tensor, a tuple or list of them, or a dictionary of keyword arguments.  OptionError when there
    is no such function, or it returns something else.
    """
    model, inputs = _made(target)
    args, kwargs = _arguments(inputs)
    found = examine(model, args, kwargs, training=training)
    lines = _refused(found) if found.graph is None else _compilable(simplify(found.graph))
    use = "training" if training else "inference"
    state = "cannot be compiled" if found.graph is None else "can be compiled"
    return "\n".join([f"{target}: {state}, {use}", *lines]), found.graph is not None


def _refused(found: Examined) -> list[str]:
    lines = [f"{len(found.refused)} findings:", *(f"  {text}" for text in found.refused)]
    if found.hosted:
        lines += ["PyTorch would run:", *(f"  {op} at {where}" for op, where in found.hosted)]
    return lines


def _compilable(graph: Graph) -> list[str]:
    nodes = [node for node in graph.nodes if node.op != "input"]
    native = sum(_flops(node) for node in nodes if node.op != "host")
    calls = {call_key(node): node for node in reversed(nodes) if node.op == "host"}
    by_target: dict[str, list[Node]] = {}
    for node in reversed(calls.values()):
        by_target.setdefault(str(node.attr("target")), []).append(node)
    total = native + sum(_flops(node) for node in calls.values())
    count = sum(node.op != "host" for node in nodes)
    lines = [f"native: {count:,} operations, {_share(native, total)} of {total:,} flops"]
    if calls:
        lines.append(f"host stages, run by PyTorch: {len(calls)}")
    for target, found in by_target.items():
        where = ", ".join(dict.fromkeys(node.src or "?" for node in found))
        flops = sum(_flops(node) for node in found)
        lines.append(f"  {len(found)} {target}, {_share(flops, total)} of flops, at {where}")
    return lines


def _flops(node: Node) -> int:
    return OPS[node.op].flops(node.type, *(a.type for a in node.args), **dict(node.attrs))


def _share(part: int, total: int) -> str:
    return f"{100 * part / max(total, 1):.1f} %"


def _made(target: str) -> tuple[Any, Any]:
    file, _, name = target.rpartition(":")
    if not file:
        raise OptionError(f"{target!r} is not of the form FILE.py:FUNCTION")
    function = getattr(_module(Path(file)), name, None)
    if not callable(function):
        raise OptionError(f"{file} has no function {name!r}")
    made = function()
    if isinstance(made, tuple) and len(made) == 2:
        return made
    inputs = getattr(made, "example_inputs", None)
    if inputs is not None:
        return made, inputs
    raise OptionError(f"{target} returns neither (model, inputs) nor a model with `example_inputs`")


def _module(file: Path) -> ModuleType:
    if not file.is_file():
        raise OptionError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise OptionError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # as `python FILE` does
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), {name: _named(name, value) for name, value in inputs.items()}
    given: Iterable[Any] = inputs if isinstance(inputs, tuple | list) else [inputs]
    return tuple(_named(f"input{i}", value) for i, value in enumerate(given)), {}


def _named(name: str, value: Any) -> Any:
    """Tensors get a name; what holds none is handed on as it is."""
    if isinstance(value, tuple | list):
        return type(value)(_named(f"{name}_{i}", part) for i, part in enumerate(value))
    return NamedTensor(name, value) if hasattr(value, "requires_grad") else value
