"""Packed sequences while a model is captured.

Where the lengths are known, rows are looked up at constant places.  Where they are values of a run,
what is packed stays padded, and a recurrent layer holds each state still behind its sequence's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._decomp import decompositions
from torch.nn.functional import dropout, linear, pad
from torch.utils._python_dispatch import _disable_current_modes

from batucada.capture.places import frames_here, user_line
from batucada.capture.recorder import Recorder
from batucada.errors import CaptureError

Tensor = torch.Tensor
_VF: Any = torch._VF
_pack, _pad = _VF._pack_padded_sequence, _VF._pad_packed_sequence
_lstm_cell: Any = decompositions.lstm_cell
_gru_cell: Any = decompositions.gru_cell
States = tuple[Tensor, ...]
Cell = Callable[..., States]
"""The next states, by the products of the inputs, the states, and the weight and bias of these; of
a projected LSTM, by the weight of the projection, too."""

_HIDDEN = (
    "the packed values of sequences whose lengths are values of a run are used; only recurrent"
    " layers and pad_packed_sequence take them. Unpack first and use a mask, or give the lengths"
    " as a list"
)


@contextmanager
def packed_sequences(recorder: Recorder) -> Iterator[None]:
    sequences = _Sequences(recorder)
    replaced: dict[str, Any] = {
        "_pack_padded_sequence": sequences.pack,
        "_pad_packed_sequence": sequences.pad,
    }
    for name, cell in _CELLS.items():
        replaced[name] = sequences.recurrent(getattr(_VF, name), cell)
    vars(_VF).update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            delattr(_VF, name)


class _Sequences:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.padded: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        """What stands for packed values -> itself, the values [T, B, *] and lengths [B]."""

    def pack(self, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        x = x.transpose(0, 1) if batch_first else x
        steps, batch = x.shape[:2]
        with _disable_current_modes():
            known = self.recorder.value_of(lengths)
            places = torch.arange(steps * batch).view(steps, batch)
            whole = torch.full((batch,), steps) if known is None else known
            order, sizes = _pack(places, whole, False)
        if known is not None:
            return x.flatten(0, 1)[order], sizes
        return self._standing_for(x, lengths), sizes

    def _standing_for(self, x: Tensor, lengths: Tensor) -> Tensor:
        with _disable_current_modes():
            data = torch.empty(
                (x.shape[0] * x.shape[1], *x.shape[2:]), dtype=x.dtype, device="meta"
            )
        self.recorder.unusable[id(data)] = _HIDDEN
        self.padded[id(data)] = data, x, lengths
        return data

    def pad(
        self, data: Tensor, sizes: Tensor, batch_first: bool, value: float, steps: int
    ) -> tuple[Tensor, Tensor]:
        if id(data) in self.padded:
            _, x, lengths = self.padded[id(data)]
            seen = _seen(lengths, x)
            x = torch.where(seen, x, value)
            x = pad(x, (*(0, 0) * (x.dim() - 1), 0, steps - x.shape[0]), value=value)
        else:
            with _disable_current_modes():
                rows = torch.arange(data.shape[0])
                at, lengths = _pad(rows, self._sizes(sizes), False, -1, steps)
            x = torch.cat([data, data.new_full((1, *data.shape[1:]), value)])[at]
        return x.transpose(0, 1) if batch_first else x, lengths

    def _sizes(self, sizes: Tensor) -> Tensor:
        known = self.recorder.value_of(sizes)
        if known is None:
            raise CaptureError(
                f"{user_line(frames_here())}: the batch sizes of a packed sequence are values of a"
                " run; pack the padded sequences within the model, with their lengths"
            )
        return known

    def recurrent(self, original: Callable[..., Any], cell: Cell) -> Callable[..., Any]:
        def layers(x: Tensor, *args: Any) -> Any:
            if not isinstance(args[1], list):  # weights, unless `x` is packed
                if id(x) in self.padded:
                    return self._layers(cell, x, *args[1:])
                with _disable_current_modes():
                    args = self._sizes(args[0]), *args[1:]
            return original(x, *args)

        return layers

    def _layers(
        self, cell: Cell, data: Tensor, start: Any, weights: Sequence[Tensor], biases: bool,
        layers: int, rate: float, training: bool, both_ways: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        _, x, lengths = self.padded[id(data)]
        seen = _seen(lengths, x)
        first = start if isinstance(start, tuple) else (start,)
        directions = 1 + both_ways
        count = len(weights) // (layers * directions)
        last: list[States] = []
        for layer in range(layers):
            found = []
            for direction in range(directions):
                index = layer * directions + direction
                of_input, weight, *rest = weights[index * count : (index + 1) * count]
                bias_of_input, bias, *rest = rest if biases else (None, None, *rest)
                products = linear(x, of_input, bias_of_input)
                states = tuple(state[index] for state in first)
                others = weight, bias, *rest
                out, states = _layer(cell, products, seen, states, others, direction == 1)
                found.append(out)
                last.append(states)
            x = torch.cat(found, -1)
            if layer + 1 < layers:
                x = dropout(x, rate, training)
        return self._standing_for(x, lengths), *(
            torch.stack(kind) for kind in zip(*last, strict=True)
        )


def _seen(lengths: Tensor, x: Tensor) -> Tensor:
    """bool [T, B, 1, ...], one dimension for each of x: which steps a sequence has."""
    seen = torch.arange(x.shape[0]).unsqueeze(1) < lengths
    return seen[(..., *[None] * (x.dim() - 2))]


def _layer(
    cell: Cell, products: Tensor, seen: Tensor, states: States, weights: tuple[Any, ...],
    backwards: bool,
) -> tuple[Tensor, States]:  # fmt: skip
    outputs: list[Tensor] = []
    steps = range(products.shape[0])
    for step in reversed(steps) if backwards else steps:
        changed = cell(products[step], states, *weights)
        states = tuple(
            torch.where(seen[step], new, old) for new, old in zip(changed, states, strict=True)
        )
        outputs.append(states[0])
    return torch.stack(outputs[::-1] if backwards else outputs), states


def _lstm(
    products: Tensor, states: States, weight: Tensor, bias: Any, projection: Any = None
) -> States:
    return _lstm_cell(products, *states, weight, bias, projection, 1)


def _gru(products: Tensor, states: States, weight: Tensor, bias: Any) -> States:
    return (_gru_cell(products, states[0].unsqueeze(0), None, None, weight, bias).squeeze(0),)


def _rnn(nonlinearity: Callable[[Tensor], Tensor]) -> Cell:
    def cell(products: Tensor, states: States, weight: Tensor, bias: Any) -> States:
        return (nonlinearity(linear(states[0], weight, bias) + products),)

    return cell


_CELLS: dict[str, Cell] = {
    "lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu),
}  # fmt: skip
