"""Networks over sequences: recurrent, convolutional, transformers of torch.nn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from .row import Batch, Row, classifier, faster_sgd

WORDS = 32


class _LastOfLSTM(nn.Module):
    """[B, T, 16] -> logits [B, 10] from the last step of both directions"""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.classes = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.lstm(x)[0][:, -1])


def _sequences() -> Batch:
    return {"x": torch.randn(4, 12, 16), "labels": torch.randint(10, (4,))}


class _SequenceToSequence(nn.Module):
    """The last state of one GRU starts another, which is told the word before each (Sutskever,
    Vinyals and Le, Sequence to Sequence Learning with Neural Networks)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width, padding_idx=0)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.words(source))
        found, _ = self.decoder(self.words(target[:, :-1]), state)
        logits = self.out(found).flatten(0, 1)
        return functional.cross_entropy(logits, target[:, 1:].flatten(), ignore_index=0)


def _translations() -> Batch:
    return {"source": torch.randint(WORDS, (4, 10)), "target": torch.randint(WORDS, (4, 9))}


class _CharacterRNN(nn.Module):
    """characters [B, T] -> logits [B, words, T]"""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(WORDS, 24)
        self.rnn = nn.RNN(24, 48, num_layers=2, batch_first=True)
        self.out = nn.Linear(48, WORDS)

    def forward(self, characters: Tensor) -> Tensor:
        return self.out(self.rnn(self.characters(characters))[0]).transpose(1, 2)


def _text(batch: int = 4, steps: int = 16) -> Callable[[], Batch]:
    """words [B, T] and the word that follows each"""

    def draw() -> Batch:
        words = torch.randint(WORDS, (batch, steps + 1))
        return {"words": words[:, :-1].contiguous(), "following": words[:, 1:].contiguous()}

    return draw


class _Causal(nn.Module):
    """A dilated convolution that sees the past alone."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv = weight_norm(nn.Conv1d(inputs, outputs, 3, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (self.past, 0)))


class _TemporalBlock(nn.Module):
    """Bai, Kolter and Koltun, An Empirical Evaluation of Generic Convolutional and Recurrent
    Networks for Sequence Modeling."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Causal(inputs, outputs, dilation), nn.ReLU(),
            _Causal(outputs, outputs, dilation), nn.ReLU(),
        )  # fmt: skip
        self.past = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.past(x))


def _tcn() -> nn.Module:
    blocks = [_TemporalBlock(8 if i == 0 else 16, 16, 2**i) for i in range(3)]
    return classifier(nn.Sequential(*blocks, nn.Conv1d(16, 10, 1)))


def _labelled_steps() -> Batch:
    return {"x": torch.randn(4, 8, 32), "labels": torch.randint(10, (4, 32))}


class _WaveNet(nn.Module):
    """Gated dilated convolutions with residual and skip paths (van den Oord et al., WaveNet):
    samples [B, T] of `words` levels -> logits [B, words, T]"""

    def __init__(self, width: int = 16, layers: int = 4) -> None:
        super().__init__()
        self.samples = nn.Embedding(WORDS, width)
        self.gates = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers)
        )
        self.paths = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(layers))
        self.out = nn.Sequential(
            nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, WORDS, 1)
        )

    def forward(self, samples: Tensor) -> Tensor:
        x = self.samples(samples).transpose(1, 2)
        skips = torch.zeros_like(x)
        for index, (gate, path) in enumerate(zip(self.gates, self.paths, strict=True)):
            filtered, gated = gate(functional.pad(x, (2**index, 0))).chunk(2, 1)
            residual, skip = path(torch.tanh(filtered) * torch.sigmoid(gated)).chunk(2, 1)
            x, skips = x + residual, skips + skip
        return self.out(skips)


class _Encoder(nn.Module):
    """words [B, T] and which of them are padding -> logits [B, words, T]"""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, WORDS)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        found = self.encoder(self.words(words), src_key_padding_mask=padding)
        return self.out(found).transpose(1, 2)


def _padded_text() -> Batch:
    words = _text()()
    lengths = torch.randint(8, 17, (4,))
    padding = torch.arange(16)[None] >= lengths[:, None]
    return {
        "words": words["words"],
        "padding": padding,
        "following": words["following"].masked_fill(padding, -100),
    }


class _Transformer(nn.Module):
    """torch.nn.Transformer, encoder and decoder, with the decoder's causal mask."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.transformer = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.out = nn.Linear(width, WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        steps = target.shape[1] - 1
        causal = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1)
        found = self.transformer(
            self.words(source), self.words(target[:, :-1]), tgt_mask=causal, tgt_is_causal=True
        )
        return functional.cross_entropy(
            self.out(found).flatten(0, 1), target[:, 1:].flatten(), ignore_index=0
        )


ROWS = (
    Row("bidirectional LSTM", "recurrent", lambda: classifier(_LastOfLSTM()), _sequences),
    Row("GRU seq2seq", "recurrent", _SequenceToSequence, _translations),
    Row("character RNN", "recurrent", lambda: classifier(_CharacterRNN()), _text(), faster_sgd),
    Row("TCN", "sequence convolution", _tcn, _labelled_steps),
    Row(
        "WaveNet", "sequence convolution", lambda: classifier(_WaveNet()), _text(2, 32), faster_sgd,
    ),
    Row(
        "transformer encoder", "transformer", lambda: classifier(_Encoder()), _padded_text,
        quick=True,
    ),
    Row("transformer", "transformer", _Transformer, _translations),
)  # fmt: skip
