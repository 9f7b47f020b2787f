"""`samba.utils.tensorboard_debug`"""

from sambaflow.absent import absent

dump_accuracy_debug_info = absent(
    "samba.utils.tensorboard_debug.dump_accuracy_debug_info",
    "read tensors with samba.session.get_tensors_by_name; samba.utils.assert_close compares them",
)
