"""What stands in the way of a capture, gathered so that all of it is said at once."""

from __future__ import annotations

from batucada.errors import UnsupportedOpError


class Findings:
    """`refused` holds what cannot be captured, each finding once; `hosted` the operator and the
    user's line of each call that PyTorch will make."""

    def __init__(self) -> None:
        self.refused: dict[str, None] = {}
        self.hosted: list[tuple[str, str]] = []

    def refuse(self, finding: str) -> bool:
        """Whether it is new."""
        new = finding not in self.refused
        self.refused[finding] = None
        return new

    def raise_refused(self) -> None:
        if self.refused:
            found = "\n  ".join(self.refused)
            raise UnsupportedOpError(f"the model cannot be compiled as it is:\n  {found}")
