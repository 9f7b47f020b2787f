"""`samba.optim`: torch's optimizers, whose state `session.run` advances on the device."""

from sambaflow.absent import absent
from sambaflow.samba.optim.adam import Adam, AdamW
from sambaflow.samba.optim.sgd import SGD

SparseAdamW = absent("samba.optim.SparseAdamW", "use samba.optim.AdamW; gradients are dense here")

__all__ = ["SGD", "Adam", "AdamW", "SparseAdamW"]
