"""timm's image mixers and its vision transformer, with few blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .row import Row, classifier, images

# timm takes seconds to import: only a row that is run pays for it.


def _vit() -> nn.Module:
    import timm

    return classifier(
        timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=10)
    )


def _mlp_mixer(**options: Any) -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return classifier(
        MlpMixer(num_classes=10, img_size=32, patch_size=4, embed_dim=64, num_blocks=3, **options)
    )


def _resmlp() -> nn.Module:
    from timm.models.mlp_mixer import Affine, ResBlock

    return _mlp_mixer(mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine)


def _gmlp() -> nn.Module:
    from timm.layers.mlp import GatedMlp
    from timm.models.mlp_mixer import SpatialGatingBlock

    return _mlp_mixer(mlp_ratio=6, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp)


def _conv_mixer() -> nn.Module:
    from timm.models.convmixer import ConvMixer

    return classifier(ConvMixer(dim=64, depth=3, kernel_size=5, patch_size=4, num_classes=10))


def _pool_former() -> nn.Module:
    from timm.models import metaformer

    norm: Any = metaformer.GroupNorm1  # pyright: ignore[reportPrivateImportUsage]
    plain: Any = {"downsample_norm": None, "res_scale_init_values": None, "use_mlp_head": False}
    return classifier(
        metaformer.MetaFormer(
            num_classes=10, depths=(1, 1, 2, 1), dims=(32, 64, 128, 160), mlp_act=nn.GELU,
            mlp_bias=True, norm_layers=norm, layer_scale_init_values=1e-2, **plain,
        )
    )  # fmt: skip


def _row(name: str, build: Callable[[], nn.Module]) -> Row:
    return Row(name, "image mixer", build, images(4, 32))


ROWS = (
    Row("ViT-tiny", "image transformer", _vit, images(4, 64)),
    _row("MLP-Mixer", _mlp_mixer),
    _row("ResMLP", _resmlp),
    _row("gMLP", _gmlp),
    _row("ConvMixer", _conv_mixer),
    Row("PoolFormer", "image mixer", _pool_former, images(4, 64)),
)
