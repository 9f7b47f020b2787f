"""`samba.nn.Module`: a torch module that can run itself on the device."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from sambaflow.samba import device


class Module(nn.Module):
    """Base class of models of the 2020-21 releases."""

    def run(
        self,
        inputs: Any,
        section_types: Sequence[str] | None = None,
        grad_of_outputs: Sequence[Any] | None = None,
        **options: Any,
    ) -> Sequence[Any]:
        """`samba.session.run` of the traced program."""
        return device.current().run(
            inputs, section_types=section_types, grad_of_outputs=grad_of_outputs, **options
        )
