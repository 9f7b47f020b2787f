"""`samba.optim`: torch's optimizers, whose state `session.run` advances on the device."""

from sambaflow.samba.optim.adam import Adam, AdamW
from sambaflow.samba.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW"]
