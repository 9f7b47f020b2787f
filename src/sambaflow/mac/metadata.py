"""Hints on how to tile large images over an RDU; `session.compile(metadata=...)` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class TilingMetadata:
    """Size of the image, [N, C, H, W], and the number of tiles, [N, rows, columns]."""

    key: ClassVar[str] = "tiling"

    def __init__(self, original_size: Sequence[int], num_tiles: Sequence[int] = ()) -> None:
        self.original_size = list(original_size)
        self.num_tiles = list(num_tiles)


class ConvTilingMetadata(TilingMetadata):
    """As `TilingMetadata`, for convolutions."""

    key: ClassVar[str] = "conv_tiling"
