"""`samba.materialize`: a model with its weights, for a reference run on the host."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def materialize(model: nn.Module) -> Iterator[nn.Module]:
    """`model` itself: its weights are never lazy here."""
    yield model
