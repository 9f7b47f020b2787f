"""Records of a program's settings."""

from sambaflow.samba.schema import snconfig

__all__ = ["snconfig"]
