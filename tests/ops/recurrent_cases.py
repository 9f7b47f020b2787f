"""LSTM, GRU and RNN over their options, and their cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.ops.against_eager import Case

_GENERATOR = torch.Generator().manual_seed(23)
KINDS: dict[str, type[nn.RNNBase]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


class _Flat(nn.Module):
    """A recurrent layer's outputs and last states in one row."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> torch.Tensor:
        given: Any = state if len(state) > 1 else next(iter(state), None)
        found, last = self.layer(x, given)
        last = last if isinstance(last, tuple) else (last,)
        return torch.cat([found.flatten(), *(part.flatten() for part in last)])


class _Last(nn.Module):
    """The outputs of the last step alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0][:, -1]


def _case(name: str, layer: nn.Module, *tensors: torch.Tensor) -> Case:
    """Many steps one behind the other: a sum's rounding enters all that follow."""
    return Case(name, _Flat(layer), tensors, 1e-4, 1e-5)


def layers(kind: str) -> list[Case]:
    cls: Any = KINDS[kind]
    states = 2 if kind == "LSTM" else 1
    both = cls(4, 6, 2, bidirectional=True, batch_first=True)
    ends = cls(4, 6, bidirectional=True, batch_first=True)
    cases = [
        _case(kind, cls(4, 6), _normal(5, 3, 4)),
        _case(f"{kind} both ways, two layers", both, _normal(3, 4, 4)),
        _case(f"{kind} without bias", cls(4, 6, bias=False), _normal(4, 3, 4)),
        _case(f"{kind} without batch", cls(4, 6), _normal(4, 4)),
        Case(f"{kind} both ways, last step", _Last(ends), (_normal(3, 4, 4),), 1e-4, 1e-5),
        _case(f"{kind} from states", cls(4, 6, 2), _normal(4, 3, 4), *[_normal(2, 3, 6)] * states),
    ]
    if kind == "LSTM":
        cases.append(_case("LSTM projected", cls(4, 6, 2, proj_size=3), _normal(4, 3, 4)))
    if kind == "RNN":
        cases.append(_case("RNN of relu", cls(4, 6, nonlinearity="relu"), _normal(4, 3, 4)))
    return cases


def cells() -> list[Case]:
    return [
        Case("GRUCell", nn.GRUCell(4, 6), (_normal(3, 4), _normal(3, 6))),
        Case("RNNCell", nn.RNNCell(4, 6), (_normal(3, 4), _normal(3, 6))),
        Case("RNNCell of relu", nn.RNNCell(4, 6, nonlinearity="relu"), (_normal(3, 4),)),
    ]


class _Packed(nn.Module):
    """A recurrent layer's outputs, padded with 3 up to 6 steps, last states and lengths in one row.

    The lengths are those given, else an input.
    """

    def __init__(self, layer: nn.RNNBase, lengths: list[int] | None = None) -> None:
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x: torch.Tensor, *lengths: torch.Tensor) -> torch.Tensor:
        first = self.layer.batch_first
        packed = pack_padded_sequence(x, self.lengths or lengths[0], first, enforce_sorted=False)
        out, last = self.layer(packed)
        found, steps = pad_packed_sequence(out, first, 3.0, 6)
        last = last if isinstance(last, tuple) else (last,)
        return torch.cat([found.flatten(), *(part.flatten() for part in last), steps.float()])


class _Captions(nn.Module):
    """The loss of the words that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5)

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        given, wanted = (pack_padded_sequence(t, [4, 2, 1], True) for t in (x, words))
        return cross_entropy(self.layer(given)[0].data, wanted.data)


def packed() -> list[Case]:
    lengths = torch.tensor([2, 3, 1])
    known = _Packed(nn.GRU(4, 5, bidirectional=True), [2, 3, 1])
    layers = _Packed(nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True))
    projected = _Packed(nn.LSTM(4, 5, proj_size=3, bias=False))
    cases = [
        Case("captions", _Captions(), (_normal(3, 4, 4), torch.randint(5, (3, 4)))),
        _packed("known lengths", known),
        _packed("LSTM", layers, lengths),
        _packed("projected", projected, lengths),
    ]
    for cls in (nn.GRU, nn.RNN):
        cases.append(_packed(cls.__name__, _Packed(cls(4, 5, bidirectional=True)), lengths))
    return cases


def _packed(name: str, module: nn.Module, *lengths: torch.Tensor) -> Case:
    return Case(name, module, (_normal(3, 3, 4), *lengths), 1e-4, 1e-5)
