"""`samba.argconf`: arguments as records instead of a command line."""

from sambaflow.samba.argconf import args

__all__ = ["args"]
