"""torchvision's classifiers, small: few classes, small images, few layers where they can be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .row import Row, classifier, images, without_momentum


def _torchvision(entry: str, **options: Any) -> nn.Module:
    from torchvision import models  # seconds to import: only a row that is run pays for it

    return classifier(getattr(models, entry)(num_classes=10, **options))


def _row(name: str, entry: str, size: int = 64, **options: Any) -> Row:
    return Row(name, "image classifier", lambda: _torchvision(entry, **options), images(4, size))


def _residual(name: str, entry: str, double: bool = False) -> Row:
    """Blocks that begin as the identity and updates without momentum keep rounding small.  Not of
    all with 50 layers: eager ResNet-50 whose weights are one unit in the last place larger is 1e-4
    from itself, in float32; ResNet-18 is 5e-7.
    """
    row = _row(name, entry, zero_init_residual=True)
    return replace(row, optimizer=without_momentum, double=double)


def _slowly(model: nn.Module) -> torch.optim.Optimizer:
    """For a network whose first gradients are in the thousands."""
    return torch.optim.SGD(model.parameters(), lr=2**-20)


def _gently(model: nn.Module) -> torch.optim.Optimizer:
    """For a network that `sgd` takes to where the last bit of a float64 decides."""
    return torch.optim.SGD(model.parameters(), lr=2**-12)


def _most_gently(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=2**-15)


def _deep(name: str, entry: str, size: int = 64, **options: Any) -> Row:
    return replace(_row(name, entry, size, **options), double=True)


def _inception() -> Row:
    """Images of 139 pixels leave 3 by 3 positions for the last blocks to normalise over.  So eager
    whose weights are one unit in the last place larger stays within 1e-12 of itself; of 96 pixels,
    with one position, it is 0.1 from itself, and with a rate eight times as large 0.004.
    """
    options: dict[str, Any] = {"dropout": 0.0, "aux_logits": False, "init_weights": False}
    row = _deep("Inception v3", "inception_v3", 139, **options)
    return replace(row, optimizer=_most_gently)


def _vgg() -> nn.Module:
    """Its convolutions, with a small head for its three products of 120 million weights."""
    from torchvision.models import vgg11_bn

    model: Any = vgg11_bn()
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Linear(512, 10))
    return classifier(model)


def _swin(entry: str, block: str) -> nn.Module:
    """Windows of 4: two of them in the first stage, one in the second."""
    from torchvision.models import swin_transformer as swin

    return classifier(
        swin.SwinTransformer(
            patch_size=[4, 4], embed_dim=48, depths=[2, 2], num_heads=[3, 6], window_size=[4, 4],
            stochastic_depth_prob=0.0, num_classes=10, block=getattr(swin, block),
            downsample_layer=getattr(swin, f"PatchMerging{entry}"),
        )
    )  # fmt: skip


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return classifier(
        VisionTransformer(
            image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=256,
            num_classes=10,
        )
    )  # fmt: skip


def _maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return classifier(
        MaxVit(
            input_size=(64, 64), stem_channels=16, partition_size=4, block_channels=[16, 32],
            block_layers=[1, 1], head_dim=8, stochastic_depth_prob=0.0, num_classes=10,
        )
    )  # fmt: skip


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths = [48, 96, 192, 384]
    blocks = [
        CNBlockConfig(width, following, layers)
        for width, following, layers in zip(widths, [*widths[1:], None], [2, 2, 3, 2], strict=True)
    ]
    return classifier(ConvNeXt(blocks, stochastic_depth_prob=0.0, num_classes=10))


def _transformer(name: str, build: Callable[[], nn.Module], size: int = 32) -> Row:
    return Row(name, "image transformer", build, images(2, size))


ROWS = (
    _row("AlexNet", "alexnet", dropout=0.0),
    Row("VGG-11", "image classifier", _vgg, images(4, 64), double=True),
    _residual("ResNet-18", "resnet18"),
    _residual("ResNet-50", "resnet50", double=True),
    _residual("ResNeXt-50", "resnext50_32x4d"),
    _residual("Wide ResNet-50", "wide_resnet50_2", double=True),
    _deep("DenseNet-121", "densenet121"),
    _deep("GoogLeNet", "googlenet", dropout=0.0, aux_logits=False, init_weights=False),
    _inception(),
    _row("SqueezeNet", "squeezenet1_1", dropout=0.0),
    _deep("MobileNet v2", "mobilenet_v2", dropout=0.0),
    _row("MobileNet v3", "mobilenet_v3_small", dropout=0.0),
    replace(_deep("MnasNet", "mnasnet0_5", dropout=0.0), optimizer=_slowly),
    _deep("ShuffleNet v2", "shufflenet_v2_x0_5"),
    _deep("EfficientNet-B0", "efficientnet_b0", dropout=0.0, stochastic_depth_prob=0.0),
    replace(_deep("RegNet", "regnet_y_400mf"), optimizer=_gently),
    Row("ConvNeXt", "image classifier", _convnext, images(4, 64)),
    _transformer("ViT", _vit),
    _transformer("Swin", lambda: _swin("", "SwinTransformerBlock")),
    _transformer("Swin v2", lambda: _swin("V2", "SwinTransformerBlockV2")),
    _transformer("MaxViT", _maxvit, 64),
)
