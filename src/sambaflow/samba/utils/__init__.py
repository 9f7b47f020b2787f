"""`samba.utils`: tracing, comparing and measuring."""

from sambaflow.samba.random import set_seed
from sambaflow.samba.utils import argparser, common, numeric, pef_utils
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

__all__ = [
    "SNType", "argparser", "assert_close", "common", "fix_rdu_affinity", "get_file_dir", "get_rank",
    "get_world_size", "init_output_grads", "is_main_process", "measure_performance",
    "measure_sections", "numeric", "parse_dtype", "pef_utils", "set_seed", "trace_graph",
    "trace_multigraph",
]  # fmt: skip
