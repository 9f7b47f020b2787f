"""`samba.sn_private`: the vendor's internal operators, whose semantics are not public."""

from sambaflow.absent import absent

sn_gather = absent("samba.sn_private.sn_gather", "use torch.gather or torch.index_select")
sn_scatter = absent("samba.sn_private.sn_scatter", "use torch.scatter or torch.index_add")
sn_multinomial = absent(
    "samba.sn_private.sn_multinomial", "draw on the host, with torch.multinomial"
)
