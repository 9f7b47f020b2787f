"""Which node each tensor of a capture is, while tensors that share memory are changed in place.

Every view is remembered with the call that made it.  A change of a view is written back to the
tensor it views, and so on down to the tensor that owns the memory; the other views of that memory
are made anew, by their calls, when they are next used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from batucada.capture.leaves import leaves
from batucada.ir.graph import Node

aten = torch.ops.aten
Run = Callable[..., Any]  # calls an operator so that it is recorded


@dataclass(frozen=True, slots=True)
class _View:
    """`func(source, *args, **kwargs)`, the `index`-th of its results."""

    source: torch.Tensor
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int


@dataclass(frozen=True, slots=True)
class _Joined:
    """The two parts, stacked along a new last dimension."""

    parts: tuple[torch.Tensor, torch.Tensor]


class SharedElementsError(Exception):
    """A change of a view several of whose elements are one in memory."""


class Aliases:
    """The nodes of tensors.  `tensor_of` makes a tensor without data that stands for a node."""

    def __init__(self, run: Run, tensor_of: Callable[[Node], torch.Tensor]) -> None:
        self._run = run
        self._tensor_of = tensor_of
        self._nodes: dict[int, Node] = {}
        self._alive: list[torch.Tensor] = []  # an id stays unique while its tensor lives
        self._views: dict[int, _View | _Joined] = {}
        self._versions: dict[int, int] = {}  # owner of memory -> how often it was changed
        self._seen: dict[int, int] = {}  # tensor -> the version of its memory that its node is of

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._nodes

    def bind(self, tensor: torch.Tensor, node: Node) -> None:
        if tensor not in self:
            self._alive.append(tensor)
        self._nodes[id(tensor)] = node
        self._seen[id(tensor)] = self._version(tensor)

    def own(self, tensor: torch.Tensor, node: Node) -> None:
        """`tensor` is an input of the program, whatever it was made from."""
        self._views.pop(id(tensor), None)
        self.bind(tensor, node)

    def bind_view(self, out: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """`out` are results of a view operator of a tensor: those that share its memory are its
        views."""
        source = args[0]
        for index, tensor in enumerate(leaves(out)):
            if not isinstance(tensor, torch.Tensor) or tensor is source:
                continue
            if tensor.untyped_storage()._cdata == source.untyped_storage()._cdata:
                self._views[id(tensor)] = _View(source, func, args[1:], kwargs, index)
                self._seen[id(tensor)] = self._version(source)

    def turn(
        self, tensor: torch.Tensor, before: torch.Tensor, func: Any, args: Any, kwargs: Any
    ) -> None:
        """`tensor` sees its memory in another way from now on, as `func(before)` does: `before`,
        what it was, takes its place among the views.
        """
        for key, view in self._views.items():
            if isinstance(view, _View) and view.source is tensor:
                self._views[key] = replace(view, source=before)
            elif isinstance(view, _Joined):
                first, second = (before if part is tensor else part for part in view.parts)
                self._views[key] = _Joined((first, second))
        if id(tensor) in self._views:
            self._views[id(before)] = self._views[id(tensor)]
        self._versions[id(before)] = self._versions.get(id(tensor), 0)
        self._views[id(tensor)] = _View(before, func, args, kwargs, 0)
        for each in (before, tensor):
            self._seen[id(each)] = self._version(before)

    def bind_negative(self, out: torch.Tensor, source: torch.Tensor) -> None:
        """`out` is `-source`, and stays so when either is changed."""
        self._views[id(out)] = _View(source, aten.neg.default, (), {}, 0)
        self._seen[id(out)] = self._version(source)

    def bind_joined(self, out: torch.Tensor, *parts: torch.Tensor) -> None:
        """`out` is `torch.stack(parts, -1)`, and stays so when any of them is changed."""
        first, second = parts
        self._views[id(out)] = _Joined((first, second))
        self._seen[id(out)] = self._version(out)

    def whole(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor | None:
        """The tensor of which these are the two `select(tensor, -1, i)`, None if they are not."""
        views = self._views.get(id(first)), self._views.get(id(second))
        for index, view in enumerate(views):
            if not isinstance(view, _View) or view.func is not aten.select.int:
                return None
            if view.args != (-1, index) or view.source.shape[-1] != 2:
                return None
        sources = [view.source for view in views if isinstance(view, _View)]
        return sources[0] if sources[0] is sources[1] else None

    def node_of(self, tensor: torch.Tensor) -> Node:
        if self._seen[id(tensor)] != self._version(tensor):
            self.bind(tensor, self._again(self._views[id(tensor)]))
        return self._nodes[id(tensor)]

    def _again(self, view: _View | _Joined) -> Node:
        if isinstance(view, _Joined):
            parts = [self._tensor_of(self.node_of(part)) for part in view.parts]
            return self._nodes[id(self._run(aten.stack.default, parts, -1))]
        source = self._tensor_of(self.node_of(view.source))
        results = leaves(self._run(view.func, source, *view.args, **view.kwargs))
        return self._nodes[id(results[view.index])]

    def change(self, tensor: torch.Tensor, node: Node) -> None:
        """`tensor` was changed in place and is now `node`.  SharedElementsError where it, or what
        it is a view of, is expanded.
        """
        below: list[tuple[torch.Tensor, Node]] = [(tensor, node)]
        view = self._views.get(id(tensor))
        while isinstance(view, _View):
            before = self._tensor_of(self.node_of(view.source))
            tensor, node = view.source, self._written_back(view, before, self._tensor_of(node))
            below.append((tensor, node))
            view = self._views.get(id(tensor))
        if view is None:
            self._versions[id(tensor)] = self._version(tensor) + 1
        else:  # one after the other: the two may share their memory
            for index, part in enumerate(view.parts):
                value = self._run(aten.select.int, self._tensor_of(node), -1, index)
                self.change(part, self._nodes[id(value)])
        for changed, new in below:
            self.bind(changed, new)

    def owner(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor that owns the memory, a joined one for what is seen of it."""
        while isinstance(view := self._views.get(id(tensor)), _View):
            tensor = view.source
        return tensor

    def _version(self, tensor: torch.Tensor) -> int:
        """How often the memory behind it was changed."""
        owner = self.owner(tensor)
        view = self._views.get(id(owner))
        if isinstance(view, _Joined):
            return sum(self._version(part) for part in view.parts)
        return self._versions.get(id(owner), 0)

    def _written_back(self, view: _View, before: torch.Tensor, value: torch.Tensor) -> Node:
        """The source of `view` with `value` in place of what the view shows."""
        inverse = _INVERSES.get(str(view.func.overloadpacket))
        if inverse is None:  # a view of all elements in the same order
            result = self._run(aten.view.default, value, list(before.shape))
        else:
            result = inverse(self._run, before, value, view)
        return self._nodes[id(result)]


def _permuted_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    dims = [d % before.dim() for d in view.args[0]]
    return run(aten.permute.default, value, [dims.index(d) for d in range(before.dim())])


def _transposed_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(view.func, value, *view.args)


def _negated_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(view.func, value)


def _sliced_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(aten.slice_scatter.default, before, value, *view.args, **view.kwargs)


def _selected_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(aten.select_scatter.default, before, value, *view.args)


def _diagonal_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(aten.diagonal_scatter.default, before, value, *view.args, **view.kwargs)


def _strided_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    return run(aten.as_strided_scatter.default, before, value, *view.args, **view.kwargs)


def _unbound_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    dim = view.args[0] if view.args else view.kwargs.get("dim", 0)
    return run(aten.select_scatter.default, before, value, dim, view.index)


def _split_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    sizes = view.args[0]
    dim = view.args[1] if len(view.args) > 1 else view.kwargs.get("dim", 0)
    start = sizes * view.index if isinstance(sizes, int) else sum(sizes[: view.index])
    stop = start + value.shape[dim]
    return run(aten.slice_scatter.default, before, value, dim, start, stop)


def _expanded_back(run: Run, before: torch.Tensor, value: torch.Tensor, view: _View) -> Any:
    if value.numel() != before.numel():
        raise SharedElementsError
    return run(aten.view.default, value, list(before.shape))


_INVERSES: dict[str, Callable[[Run, torch.Tensor, torch.Tensor, _View], Any]] = {
    "aten.permute": _permuted_back,
    "aten.transpose": _transposed_back,
    "aten.t": _transposed_back,
    "aten.neg": _negated_back,
    "aten.slice": _sliced_back,
    "aten.select": _selected_back,
    "aten.diagonal": _diagonal_back,
    "aten.expand": _expanded_back,
    "aten.as_strided": _strided_back,
    "aten.unbind": _unbound_back,
    "aten.split": _split_back,
    "aten.split_with_sizes": _split_back,
}
