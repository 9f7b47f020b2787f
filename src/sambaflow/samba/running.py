"""The parts of `session.run` that a training step does not pass through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import batucada
from batucada.errors import InputError, OutputError
from sambaflow.samba.sambatensor import SambaTensor, from_result, from_torch_tensor, unwrap
from sambaflow.samba.traced import named_leaves


def named_inputs(inputs: Any, expected: Sequence[str]) -> tuple[list[str], list[torch.Tensor]]:
    """Names and torch tensors of a run's inputs: one tensor, a sequence with holes, or a dict,
    either of which may hold sequences and dicts of tensors.

    In a dict a tensor without a name goes by its key, in a sequence by its place among `expected`.
    """
    if isinstance(inputs, SambaTensor | torch.Tensor):
        inputs = [inputs]
    if isinstance(inputs, Mapping):
        leaves = list(_leaves({key: named_leaves(value, key) for key, value in inputs.items()}))
        return [leaf.name for leaf in leaves], [leaf.tensor for leaf in leaves]
    if not isinstance(inputs, Iterable):
        raise InputError(
            f"inputs are a tensor, a sequence or a dict of them, not {type(inputs).__name__}"
        )
    given = [value for value in _flat(inputs) if value is not None]
    pairs = list(zip(_padded(expected, len(given)), given, strict=True))
    names = [getattr(value, "sn_name", "") or fallback for fallback, value in pairs]
    return names, [_tensor(value, name) for name, (_, value) in zip(names, pairs, strict=True)]


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """The values of a sequence, and those of the sequences and dicts in it."""
    for value in values:
        if type(value) in (list, tuple):
            yield from _flat(value)
        elif isinstance(value, Mapping):
            yield from _flat(value.values())
        else:
            yield value


def _padded(names: Sequence[str], count: int) -> list[str]:
    extra = [f"input {place + 1}" for place in range(len(names), count)]
    return [*names, *extra][:count]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, SambaTensor | torch.Tensor)


def _tensor(value: Any, name: str) -> torch.Tensor:
    if not _is_tensor(value):
        raise InputError(f"input {name!r} is a {type(value).__name__}, not a tensor")
    return unwrap(value)


def samba_tensors(tree: Any) -> tuple[SambaTensor, ...]:
    """The tensors of `traced.input_tree`, in order."""
    return tuple(from_torch_tensor(leaf.tensor, leaf.name) for leaf in _leaves(tree))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, batucada.NamedTensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value)


def selected(results: Sequence[Any], wanted: Any) -> list[SambaTensor]:
    """The results that `wanted`, traced outputs or their names, asks for, in its order."""
    wanted = [wanted] if isinstance(wanted, SambaTensor | str) else list(wanted)
    by_name = {result.name: result for result in results}
    names = [item if isinstance(item, str) else item.sn_name for item in wanted]
    for name in names:
        if name not in by_name:
            raise InputError(f"there is no output {name!r}; the program has {', '.join(by_name)}")
    return [from_result(by_name[name]) for name in names]


def timed(run: Callable) -> Callable:
    """`run` with the wall time of each call appended to its list `seconds`."""

    def timed_run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        results = run(*args, **kwargs)
        timed_run.seconds.append(time.perf_counter() - start)  # type: ignore[attr-defined]
        return results

    timed_run.seconds = []  # type: ignore[attr-defined]
    return timed_run


def write_times(seconds: Iterable[float], path: Path) -> None:
    """One line a run in microseconds, then their sum."""
    times = [1e6 * duration for duration in seconds]
    lines = [f"run {number}: {time_us:.2f} us" for number, time_us in enumerate(times)]
    write_text(path, "\n".join([*lines, f"total: {sum(times):.2f} us in {len(times)} runs"]) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a report; OutputError when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
