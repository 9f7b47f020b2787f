"""`samba.utils`: tracing, comparing and measuring."""

from sambaflow.absent import absent
from sambaflow.samba.random import set_seed
from sambaflow.samba.utils import (
    argparser,
    checkpoint,
    common,
    numeric,
    pef_utils,
    tensorboard_debug,
)
from sambaflow.samba.utils.compare import assert_close
from sambaflow.samba.utils.distributed import (
    fix_rdu_affinity,
    get_rank,
    get_world_size,
    is_main_process,
)
from sambaflow.samba.utils.dtypes import SNType, parse_dtype
from sambaflow.samba.utils.measure import measure_performance, measure_sections
from sambaflow.samba.utils.utils import (
    get_file_dir,
    init_output_grads,
    trace_graph,
    trace_multigraph,
)
from sambaflow.samba.utils.weight_norm import weight_norm_

create_mac_resource_report = absent(
    "samba.utils.create_mac_resource_report",
    "there is no RDU whose resources it would tell; `batucada show` prints sections and stages",
)

__all__ = [
    "SNType", "argparser", "assert_close", "checkpoint", "common", "create_mac_resource_report",
    "fix_rdu_affinity", "get_file_dir", "get_rank", "get_world_size", "init_output_grads",
    "is_main_process", "measure_performance", "measure_sections", "numeric", "parse_dtype",
    "pef_utils", "set_seed", "tensorboard_debug", "trace_graph", "trace_multigraph", "weight_norm_",
]  # fmt: skip
