"""Networks that answer for every pixel, and features for detection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .row import Batch, Row, adamw, classifier

CLASSES = 3


def _masks(batch: int, size: int) -> Callable[[], Batch]:
    """images [B, 3, size, size] and a label for each pixel"""

    def draw() -> Batch:
        return {
            "images": torch.randn(batch, 3, size, size),
            "labels": torch.randint(CLASSES, (batch, size, size)),
        }

    return draw


class _OutOf(nn.Module):
    """torchvision's segmentation models return a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


def _segmentation(entry: str) -> nn.Module:
    from torchvision.models import segmentation

    build = getattr(segmentation, entry)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return classifier(_OutOf(model))


class _Pyramid(nn.Module):
    """Features of a ResNet-18 at five sizes, pulled towards one value: the backbone that
    torchvision's detectors share.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        self.backbone = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5
        )

    def forward(self, images: Tensor, wanted: Tensor) -> Tensor:
        levels = self.backbone(images).values()
        return torch.stack(
            [(level.mean((2, 3)) - wanted).square().mean() for level in levels]
        ).sum()


def _pyramid_batch() -> Batch:
    return {"images": torch.randn(2, 3, 64, 64), "wanted": torch.randn(2, 256)}


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class _UNet(nn.Module):
    """images [B, 3, H, W] -> logits [B, classes, H, W]; three levels"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = _twice(3, width), _twice(width, 2 * width)
        self.bottom = _twice(2 * width, 4 * width)
        self.up2, self.level2 = (
            nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
            _twice(4 * width, 2 * width),
        )
        self.up1, self.level1 = nn.ConvTranspose2d(2 * width, width, 2, 2), _twice(2 * width, width)
        self.classes = nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(functional.max_pool2d(first, 2))
        x = self.bottom(functional.max_pool2d(second, 2))
        x = self.level2(torch.cat([self.up2(x), second], 1))
        x = self.level1(torch.cat([self.up1(x), first], 1))
        return self.classes(x)


class _Autoencoder(nn.Module):
    """Images through a code a sixteenth their size and back, by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ELU(),
            nn.Conv2d(32, 12, 3, stride=2, padding=1),
        )  # fmt: skip
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(12, 32, 3, stride=2, padding=1, output_padding=1), nn.ELU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ELU(),
            nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Any:
        found = self.decode(self.encode(images))
        return functional.mse_loss(found, images), found


class _VariationalAutoencoder(nn.Module):
    """The noise of the code is an input.  Kingma and Welling, Auto-Encoding Variational Bayes."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 128)
        self.mean, self.log_variance = nn.Linear(128, code), nn.Linear(128, code)
        self.decode = nn.Sequential(nn.Linear(code, 128), nn.ReLU(), nn.Linear(128, 784))

    def forward(self, images: Tensor, noise: Tensor) -> Any:
        hidden = functional.relu(self.hidden(images.flatten(1)))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        found = self.decode(mean + noise * torch.exp(0.5 * log_variance))
        likeness = functional.binary_cross_entropy_with_logits(
            found, images.flatten(1), reduction="sum"
        )
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return (likeness + divergence) / images.numel(), mean


def _plain_images() -> Batch:
    return {"images": torch.rand(4, 3, 32, 32)}


def _noised_images() -> Batch:
    return {"images": torch.rand(8, 1, 28, 28), "noise": torch.randn(8, 8)}


class _DiffusionBlock(nn.Module):
    """Group norm, a convolution, the time's embedding, another, and attention over the pixels, as
    in the U-Net of Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.stem, self.out = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm1, self.norm2, self.norm3 = (nn.GroupNorm(8, width) for _ in range(3))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.qkv, self.project = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def _time(self, steps: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(-torch.arange(half) * (torch.log(torch.tensor(1e4)) / (half - 1)))
        angles = steps.float()[:, None] * rates[None]
        return self.time(torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self, noised: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        x = self.stem(noised)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self._time(steps)[:, :, None, None]
        x = x + self.conv2(functional.silu(self.norm2(h)))
        batch, width, rows, columns = x.shape
        q, k, v = (p.flatten(2).transpose(1, 2) for p in self.qkv(self.norm3(x)).chunk(3, 1))
        found = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        x = x + self.project(found.transpose(1, 2).reshape(batch, width, rows, columns))
        return functional.mse_loss(self.out(x), noise)


def _noised() -> Batch:
    return {
        "noised": torch.randn(2, 3, 16, 16),
        "steps": torch.randint(1000, (2,)),
        "noise": torch.randn(2, 3, 16, 16),
    }


def _pixels(name: str, entry: str, double: bool = False) -> Row:
    return Row(name, "segmentation", lambda: _segmentation(entry), _masks(2, 64), double=double)


ROWS = (
    _pixels("FCN", "fcn_resnet50", double=True),
    _pixels("DeepLab v3", "deeplabv3_mobilenet_v3_large", double=True),
    _pixels("LR-ASPP", "lraspp_mobilenet_v3_large"),
    Row("U-Net", "segmentation", lambda: classifier(_UNet()), _masks(2, 32), quick=True),
    Row("ResNet-18 FPN", "detection backbone", _Pyramid, _pyramid_batch),
    Row("autoencoder", "generative", _Autoencoder, _plain_images, adamw),
    Row("VAE", "generative", _VariationalAutoencoder, _noised_images, adamw, quick=True),
    Row("diffusion U-Net block", "generative", _DiffusionBlock, _noised),
)
