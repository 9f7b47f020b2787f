"""The queue of `--listen-for-input`."""

from sambaflow.absent import absent

Queue = absent(
    "sambaflow.online_inference_service.sn_sqs_handler.Queue",
    "there is no request queue; call samba.session.run for each request",
)
