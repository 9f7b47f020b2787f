"""All rows of the model table."""

from __future__ import annotations

from .image_rows import ROWS as IMAGE_ROWS
from .row import Row

ROWS: tuple[Row, ...] = (*IMAGE_ROWS,)
