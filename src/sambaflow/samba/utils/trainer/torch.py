"""`sambaflow.samba.utils.trainer.torch`"""

from sambaflow.absent import absent

train = absent(
    "samba.utils.trainer.torch.train",
    "its arguments are not public; write the loop with samba.session.run",
)
