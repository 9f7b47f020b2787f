"""`samba.directives`: wishes to the RDU's compiler.  Fusion here follows the graph alone."""

import contextlib
from typing import Any

from sambaflow.logging import no_effect


def op_fusion(*args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[None]:
    """Called on a module, or as a context around the operations to fuse."""
    no_effect("samba.directives.op_fusion", "the compiler chooses what to fuse")
    return contextlib.nullcontext()


def sdpa_directives(directives: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    no_effect("samba.directives.sdpa_directives", "the compiler chooses what to fuse")
    return contextlib.nullcontext()
