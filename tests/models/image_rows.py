"""torchvision's classifiers, small: few classes, small images."""

from __future__ import annotations

from typing import Any

from torch import nn

from .row import Row, classifier, images


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models  # seconds to import: only a row that is run pays for it

    return classifier(getattr(models, name)(num_classes=10, **options))


def _row(name: str, entry: str, size: int = 64, quick: bool = False, **options: Any) -> Row:
    return Row(
        name, "image classifier", lambda: _torchvision(entry, **options), images(4, size),
        quick=quick,
    )  # fmt: skip


ROWS = (_row("SqueezeNet", "squeezenet1_1", quick=True, dropout=0.0),)
