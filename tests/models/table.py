"""All rows of the model table."""

from __future__ import annotations

from .dense_rows import ROWS as DENSE_ROWS
from .fourier_rows import ROWS as FOURIER_ROWS
from .image_rows import ROWS as IMAGE_ROWS
from .mixer_rows import ROWS as MIXER_ROWS
from .plain_rows import ROWS as PLAIN_ROWS
from .row import Row
from .sequence_rows import ROWS as SEQUENCE_ROWS
from .transformers_rows import ROWS as TRANSFORMERS_ROWS

ROWS: tuple[Row, ...] = (
    *PLAIN_ROWS,
    *SEQUENCE_ROWS,
    *TRANSFORMERS_ROWS,
    *IMAGE_ROWS,
    *MIXER_ROWS,
    *DENSE_ROWS,
    *FOURIER_ROWS,
)
