"""Families of `transformers` from configuration: two layers, small vocabularies, no download."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .row import Batch, Row, images

WORDS = 128
INSTALL = "pip install '.[models]'"


class ByName(nn.Module):
    """Calls a model of `transformers` with tensors by name: the loss, and the output after it."""

    def __init__(self, model: nn.Module, names: Iterable[str], **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.fixed = fixed

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.names, tensors, strict=True))
        out = self.model(**given, **self.fixed)
        return out.loss, out[1]


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def _model(entry: str, config: str, options: dict[str, Any]) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason=INSTALL)
    model = getattr(transformers, entry)(getattr(transformers, config)(**options))
    for parameter in model.parameters():  # a norm of zeros has gradients beyond float32's reach
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def _row(
    name: str, family: str, entry: str, batch: Callable[[], Batch], config: str = "",
    quick: bool = False, fixed: dict[str, Any] | None = None, **options: Any,
) -> Row:  # fmt: skip
    def build() -> nn.Module:
        kind = config or entry.split("For")[0].removesuffix("LMHeadModel") + "Config"
        return ByName(_model(entry, kind, options), batch(), **(fixed or {}))

    return Row(name, family, build, batch, _sgd, quick)


def text(length: int = 8) -> Batch:
    ids = torch.randint(3, WORDS, (2, length))
    return {"input_ids": ids, "labels": ids.clone()}


def padded() -> Batch:
    """The second of two sequences ends early, as its mask says."""
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, int(torch.randint(3, 8, ())) :] = 0
    return text() | {"attention_mask": mask}


def translation() -> Batch:
    return {"input_ids": text()["input_ids"], "labels": torch.randint(3, WORDS, (2, 6))}


def replaced() -> Batch:
    return {"input_ids": text()["input_ids"], "labels": torch.randint(2, (2, 8))}


def pictures(size: int) -> Callable[[], Batch]:
    def draw() -> Batch:
        return dict(zip(("pixel_values", "labels"), images(2, size, 5)().values(), strict=True))

    return draw


def spectrum() -> Batch:
    return {"input_features": torch.randn(2, 8, 16), "labels": torch.randint(3, WORDS, (2, 6))}


def waves() -> Batch:
    return {"input_values": torch.randn(2, 400), "labels": torch.randint(5, (2,))}


def captions() -> Batch:
    """Each caption ends with the largest word, which is where CLIP looks."""
    ids = torch.randint(3, WORDS - 1, (2, 8))
    ids[:, -1] = WORDS - 1
    return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 16, 16)}


EAGER: dict[str, Any] = {"attn_implementation": "eager"}
GPT2: dict[str, Any] = {
    "vocab_size": WORDS, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
_NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT: dict[str, Any] = {
    **_SMALL, **_NO_DROPOUT, "vocab_size": WORDS, "max_position_embeddings": 32,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    **_SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": WORDS,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NEOX: dict[str, Any] = {
    **_SMALL, "vocab_size": WORDS, "max_position_embeddings": 32, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
OPT: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 32, "dropout": 0.0,
    "word_embed_proj_dim": 32, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
DISTILBERT: dict[str, Any] = {
    "vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
    "max_position_embeddings": 32, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
FNET: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 32, "hidden_dropout_prob": 0.0,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
    "dropout_rate": 0.0, "decoder_start_token_id": 0,
}  # fmt: skip
_TWO_STACKS: dict[str, Any] = {
    "vocab_size": WORDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "dropout": 0.0, "decoder_start_token_id": 2,
}  # fmt: skip
BART: dict[str, Any] = {
    **_TWO_STACKS, "max_position_embeddings": 32, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
WHISPER: dict[str, Any] = {
    **_TWO_STACKS, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WAV2VEC2: dict[str, Any] = {
    **_SMALL, "vocab_size": 32, "conv_dim": (16, 16, 16), "conv_stride": (4, 2, 2),
    "conv_kernel": (8, 3, 3), "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0, "layerdrop": 0.0, "apply_spec_augment": False, "num_labels": 5,
    "classifier_proj_size": 16,
}  # fmt: skip
VIT: dict[str, Any] = {
    **_SMALL, **_NO_DROPOUT, "image_size": 16, "patch_size": 4, "num_labels": 5,
}  # fmt: skip
SWIN: dict[str, Any] = {
    "image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
    "window_size": 4, "drop_path_rate": 0.0, "num_labels": 5,
}  # fmt: skip
CONVNEXT: dict[str, Any] = {
    "hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2, "image_size": 32, "num_labels": 5,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "text_config": {
        **_SMALL, "vocab_size": WORDS, "max_position_embeddings": 16, "bos_token_id": 1,
        "eos_token_id": WORDS - 1, "pad_token_id": 0,
    },
    "vision_config": {**_SMALL, "image_size": 16, "patch_size": 4},
    "projection_dim": 16,
}  # fmt: skip
MAMBA: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "expand": 2,
    "time_step_rank": 4, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

_LANGUAGE = (
    _row("GPT-2", "language", "GPT2LMHeadModel", text, quick=True, **GPT2),
    _row("GPT-2, eager attention", "language", "GPT2LMHeadModel", text, **GPT2, **EAGER),
    _row("GPT-2, padded", "language", "GPT2LMHeadModel", padded, **GPT2),
    _row("GPT-NeoX", "language", "GPTNeoXForCausalLM", text, **NEOX),
    _row("OPT", "language", "OPTForCausalLM", text, **OPT),
    _row("Llama", "language", "LlamaForCausalLM", text, **LLAMA),
    _row("Llama, eager attention, padded", "language", "LlamaForCausalLM", padded,
         **LLAMA, **EAGER),
    _row("Mistral", "language", "MistralForCausalLM", text, **LLAMA, sliding_window=4),
    _row("Gemma", "language", "GemmaForCausalLM", text, **LLAMA, head_dim=8),
    _row("Gemma 2", "language", "Gemma2ForCausalLM", text,
         **LLAMA, **EAGER, head_dim=8, sliding_window=4),
    _row("Qwen2", "language", "Qwen2ForCausalLM", text, **LLAMA),
    _row("Qwen3", "language", "Qwen3ForCausalLM", text, **LLAMA, head_dim=8),
    _row("Phi", "language", "PhiForCausalLM", text, **LLAMA),
    _row("Mixtral", "mixture of experts", "MixtralForCausalLM", text,
         **LLAMA, num_local_experts=4, num_experts_per_tok=2),
    _row("Mamba", "state space", "MambaForCausalLM", text, **MAMBA),
)  # fmt: skip
_TEXT = (
    _row("BERT", "text", "BertForMaskedLM", text, **BERT),
    _row("BERT, eager attention, padded", "text", "BertForMaskedLM", padded, **BERT, **EAGER),
    _row("RoBERTa", "text", "RobertaForMaskedLM", text, **BERT),
    _row("DistilBERT", "text", "DistilBertForMaskedLM", text, **DISTILBERT),
    _row("ALBERT", "text", "AlbertForMaskedLM", text, **BERT, embedding_size=16),
    _row("ELECTRA", "text", "ElectraForPreTraining", replaced, **BERT, embedding_size=16),
    _row("FNet", "text", "FNetForMaskedLM", text, **FNET),
    _row("T5", "translation", "T5ForConditionalGeneration", translation, **T5),
    _row("BART", "translation", "BartForConditionalGeneration", translation, **BART),
)
_OTHER = (
    _row("ViT (transformers)", "image classifier", "ViTForImageClassification", pictures(16),
         **VIT),
    _row("DeiT", "image classifier", "DeiTForImageClassification", pictures(16), **VIT),
    _row("BEiT", "image classifier", "BeitForImageClassification", pictures(16),
         **VIT, drop_path_rate=0.0, use_relative_position_bias=True),
    _row("Swin (transformers)", "image classifier", "SwinForImageClassification", pictures(32),
         **SWIN),
    _row("ConvNeXt (transformers)", "image classifier", "ConvNextForImageClassification",
         pictures(32), **CONVNEXT),
    _row("Whisper", "speech", "WhisperForConditionalGeneration", spectrum, **WHISPER),
    _row("Wav2Vec2", "speech", "Wav2Vec2ForSequenceClassification", waves, **WAV2VEC2),
    _row("CLIP", "image and text", "CLIPModel", captions, config="CLIPConfig",
         fixed={"return_loss": True}, **CLIP),
)  # fmt: skip

ROWS = (*_LANGUAGE, *_TEXT, *_OTHER)
