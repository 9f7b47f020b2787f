"""`samba.utils.checkpoint`"""

from sambaflow.absent import absent

load_sharded_checkpoint = absent(
    "samba.utils.checkpoint.load_sharded_checkpoint",
    "load each shard with torch.load, then model.load_state_dict(shard, strict=False) and"
    " samba.session.to_rdu(model)",
)
