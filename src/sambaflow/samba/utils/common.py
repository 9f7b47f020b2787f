"""`common_app_driver`: the commands that need nothing of the program itself."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from batucada.errors import OptionError
from sambaflow.logging import samba_logger
from sambaflow.samba.sambatensor import unwrap
from sambaflow.samba.session import session
from sambaflow.samba.utils.distributed import get_world_size
from sambaflow.samba.utils.measure import measure_performance, measure_sections
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.utils import trace_graph


def common_app_driver(
    args: argparse.Namespace,
    model: nn.Module,
    inputs: Any,
    optim: Any = None,
    name: str | None = None,
    squeeze_bs_dim: bool = False,
    get_output_grads: bool = True,
    init_output_grads: bool = True,
    metadata: Mapping[str, Any] | None = None,
    app_dir: str | None = None,
    **options: Any,
) -> None:
    """Does `compile`, `measure-performance`, `measure-sections` and `measure-cpu`.

    For `run` and `test` it does nothing: what they do is the program's own affair.
    """
    if args.command in ("run", "test"):
        return
    if args.command == "compile":
        session.compile(
            model, inputs, optim, name=name, app_dir=app_dir, config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model), metadata=metadata, **options,
        )  # fmt: skip
    elif args.command == "measure-cpu":
        _measure_cpu(args, model, inputs)
    elif args.command in ("measure-performance", "measure-sections"):
        trace_graph(model, inputs, _unless_inference(args, optim), pef=args.pef)
        _measure(args, model, inputs)
    else:
        raise OptionError(f"common_app_driver: unknown command {args.command!r}")


def _unless_inference(args: argparse.Namespace, optim: Any) -> Any:
    return None if args.inference else optim


def _measure(args: argparse.Namespace, model: nn.Module, inputs: Any) -> None:
    _check_world_size(args)
    shared = {
        "batch_size": args.batch_size, "n_iterations": args.num_iterations,
        "min_duration": args.min_duration, "json": args.json or args.bench_report_json,
        "data_parallel": args.data_parallel, "reduce_on_rdu": args.reduce_on_rdu,
    }  # fmt: skip
    if args.command == "measure-sections":
        measure_sections(model, inputs, num_sections=args.num_sections, **shared)
    else:
        measure_performance(model, inputs, n_chips=args.n_chips, inference=args.inference, **shared)


def _check_world_size(args: argparse.Namespace) -> None:
    """Say where `-ws` is not what is measured."""
    if args.data_parallel and args.world_size != get_world_size():
        samba_logger.warning(
            f"{get_world_size()} processes are measured, and -ws is {args.world_size}: explicitly"
            " add --ws with the number of processes that the launcher starts"
        )


def _measure_cpu(args: argparse.Namespace, model: nn.Module, inputs: Any) -> None:
    """Time the forward pass of the model on the host."""
    arguments = unwrap(inputs if isinstance(inputs, tuple | list) else (inputs,))
    model(*arguments)
    start = time.perf_counter()
    for _ in range(args.num_iterations):
        model(*arguments)
    seconds = time.perf_counter() - start
    throughput = args.batch_size * args.num_iterations / seconds
    print(
        f"cpu_latency: {seconds} seconds, throughput: {throughput} samples/s, "
        f"measured over {args.num_iterations} iterations."
    )
