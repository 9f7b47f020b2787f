"""`sambaflow.samba.utils.trainer.samba`"""

from sambaflow.absent import absent

train = absent(
    "samba.utils.trainer.samba.train",
    "its arguments are not public; write the loop with samba.session.run",
)
