"""Every flag of SambaFlow's command line, in one table.  `docs/flags.md` is printed from it.

A flag that acts here says so by `effect`; the others belong to the RDU and its compiler: they are
accepted, they set their attribute, and when given they print one line that says they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sambaflow.samba.utils.values import fraction_or_more, positive

Command = Literal[
    "compile", "run", "test", "measure-performance", "measure-sections", "measure-cpu"
]
COMPILE: tuple[Command, ...] = ("compile",)
MEASURE: tuple[Command, ...] = ("measure-performance", "measure-sections")
ON_DEVICE: tuple[Command, ...] = ("run", "test", *MEASURE)
COMMANDS: tuple[Command, ...] = ("compile", "run", "test", *MEASURE, "measure-cpu")


@dataclass(frozen=True)
class Flag:
    """Spellings, default, and, where it takes a value, the `type` that reads it.

    Without `type` it is a switch.  `attribute` is its name in the namespace, by default that of the
    last spelling.  Without `help` the flag is experimental and shows with --debug only.
    """

    names: tuple[str, ...]
    default: Any = False
    type: Callable[[str], Any] | None = None
    help: str = ""
    effect: bool = False
    commands: tuple[Command, ...] = COMMANDS
    choices: tuple[str, ...] | None = None
    nargs: str | None = None
    const: Any = True
    attribute: str = ""

    @property
    def dest(self) -> str:
        return self.attribute or self.names[-1].lstrip("-").replace("-", "_")


def _acts(*names: str, **fields: Any) -> Flag:
    return Flag(names, effect=True, **fields)


def _switches(*names: str) -> tuple[Flag, ...]:
    return tuple(Flag((name,)) for name in names)


def _values(default: Any, type: Callable[[str], Any], *names: str) -> tuple[Flag, ...]:
    return tuple(Flag((name,), default, type) for name in names)


ACTING = (
    _acts("-p", "--pef", default=None, type=str, commands=ON_DEVICE,
          help="the PEF to load (required)"),
    _acts("--pef-name", default=None, type=str, commands=COMPILE,
          help="name of the PEF and of its folder; by default the time and the process id"),
    _acts("--output-folder", default="out", type=str, commands=COMPILE,
          help="the PEF and its logs go to <output-folder>/<pef-name>/"),
    _acts("-b", "--batch-size", default=1, type=positive,
          help="samples in a batch; a PEF runs with the one it was compiled for"),
    _acts("--inference", help="the forward pass alone; give it when compiling and when running"),
    _acts("-n", "--num-iterations", default=100, type=positive,
          commands=(*MEASURE, "measure-cpu"), help="steps to time"),
    _acts("--min-duration", default=0.0, type=fraction_or_more, commands=MEASURE,
          help="seconds to measure for at least"),
    _acts("--run-graph-only", commands=MEASURE,
          help="time the program without transfers, which is how it is always timed"),
    _acts("--json", default=None, type=str, commands=MEASURE, help="write the timing to this file"),
    _acts("--bench-report-json", default=None, type=str, commands=MEASURE, help="as --json"),
    _acts("--acc-report-json", default=None, type=str,
          help="file for the program's accuracy report"),
    _acts("--compiled-stats-json", default=None, type=str,
          help="write the compile report to this file"),
    _acts("--num-sections", default=None, type=positive, commands=MEASURE,
          help="sections to measure, from the first"),
    _acts("--absolute-numeric-threshold", default=None, type=fraction_or_more,
          help="absolute tolerance of assert_close where the program gives none"),
    _acts("--relative-numeric-threshold", default=None, type=fraction_or_more,
          help="relative tolerance of assert_close where the program gives none"),
    _acts("--data-parallel", help="run as one of several replicas that a launcher started"),
    _acts("--reduce-on-rdu", help="gradients are reduced where the program runs"),
    _acts("-ws", "--ws", "--world-size", default=1, type=positive,
          commands=(*COMPILE, *MEASURE), help="number of replicas; any number may run the PEF"),
    _acts("--log-level", default="warning", type=str, choices=("error", "warning", "info"),
          help="which messages to show"),
    _acts("--debug", help="show experimental flags in the help, and messages of every level"),
)  # fmt: skip

OF_THE_RDU = (
    Flag(("-mb", "--microbatch-size"), None, positive, "samples in flight at a time"),
    Flag(("--mapping",), "section", str, "section: one kernel at a time; spatial: all resident",
         choices=("section", "spatial")),
    Flag(("--num-spatial-batches",), 1, positive, "batches a launch of a spatial mapping"),
    Flag(("--n-chips", "--num-chips"), 1, positive, "RDUs for one copy of the model",
         attribute="n_chips"),
    Flag(("--num-tiles",), -1, int, "tiles of an RDU to use; -1: all"),
    Flag(("--arch",), None, str, "the RDU to compile for"),
    Flag(("--o0",), help="every operator in a section of its own"),
    Flag(("--o1",), help="fuse operators by rules"),
    Flag(("--o3",), help="fuse over the whole graph"),
    Flag(("--optim-level",), "o3", str),
    Flag(("--optimization-rules",), None, str, "fusion rules, a YAML file"),
    Flag(("--graphamp-preset",), "default", str, "which operations to run in bf16",
         choices=("mp0", "mp1", "mp4", "default")),
    Flag(("--tensor-parallel",), "none", str, "split tensors over RDUs",
         choices=("none", "batch", "weight")),
    Flag(("--model-parallel",), help="split the model over RDUs"),
    Flag(("--data-parallel-mode",), "normal", str, "how replicas work together"),
    Flag(("--distlearn-config",), "", str, "settings of distributed training"),
    Flag(("--enable-stochastic-rounding",), help="round at random in bf16"),
    Flag(("--fp32-params",), help="keep parameters in fp32, as they are here anyway"),
    Flag(("--compiler-configs-file",), "", str, "settings of the RDU's compiler, a JSON file"),
    Flag(("--mac-human-decision",), None, str, "placement by hand, a JSON file"),
    Flag(("--resources-scaling-factors",), ["-1.0"] * 4, str, "scale the resource estimates",
         nargs="+"),
    Flag(("--enable-conv-tiling",), help="tile large convolutions"),
    Flag(("--grad-accumulation-steps",), 1, positive, "steps between updates"),
    Flag(("-v", "--verbose"), 0, int, "more messages", nargs="?", const=1),
    Flag(("--log-dir",), None, str, "folder for logs; they are beside the PEF"),
    Flag(("--visualize",), help="draw what was compared"),
    Flag(("--plot",), None, str, "draw the graph", nargs="?"),
    Flag(("--gold-file-path",), None, str, "expected outputs"),
    Flag(("--listen-for-input",), help="serve requests from a queue"),
    Flag(("--mock-inference",), help="serve made-up requests"),
    Flag(("--dump-accuracy-debug-info",), help="write tensors for TensorBoard"),
    Flag(("--compiler-mode",), "", str),
    Flag(("--amp-level",), 4, int),
    Flag(("--default-device",), "DDR", str),
    Flag(("--stage-instrumentation",), "none", str),
    Flag(("--tile-orientation",), "auto", str),
    Flag(("--section-cut-beam-search",), [], str, nargs="*"),
    Flag(("--disable-strict-conversion",)),
    Flag(("--target-sambaflow-version",), None, str),
    *_values(None, str, "--mlir-file-name", "--resource-report-path", "--input-layout",
             "--weight-layout", "--prism-jobs", "--mac-templatedb-dir-backup-to",
             "--mac-templatedb-dir-init-from"),
    *_values("", str, "--json-counters", "--mac-templatedb-dir", "--traced-attributes-folder"),
    *_values(None, float, "--latency-budget-fwd", "--latency-budget-bwd"),
    *_values(None, int, "--max-tiling-depth"),
    *_values(-1.0, float, "--recompute-ratio", "--max-expected-mac-latency"),
    *_values(-1, int, "--max-mac-loop-attempt"),
    *_values(3, int, "--section-cut-sort-order"),
    *_switches(
        "--mac-v1", "--mac-v2", "--metapipe-disable", "--enable-hypersection", "--hypersection-arc",
        "--weight-sharing", "--measure-spatial", "--samba-plot", "--gen-tensorboard",
        "--include-read-stall-cycles", "--verbose-report", "--fix-rank-rdu-mapping",
        "--train-samba-spatial", "--strict-conversion", "--strict-auto-cast",
        "--disable-retry-lower-visible-resources", "--enable-hd-retry-lower-visible-resources",
        "--host-fifo", "--ndtest", "--ndtest-mp", "--arc-debug-mode", "--disable-mac-tiling",
        "--enable-conv2d-conversion", "--force-node-proximity", "--fuse-fwd-bwd", "--mac-only",
        "--run-analysis-pass", "--single-opt-sec", "--skip-instrumentation-on-read0",
        "--skip-instrumentation-on-read1", "--stop-mac-c++", "--validate-mac-resource-prediction",
        "--dense-adam-fast-grad-compute", "--disable-bf16-conversion",
        "--dropout-tiling-legalizer-error", "--dump-compiled-stats-json", "--dump-traced-graph",
        "--enable-buffer-trial-compile", "--enable-node-trial-compile",
        "--enable-node-trial-compile-logging", "--mac-conv-tiling-c++", "--mac-print-mapping-ir",
        "--mac-split-cat-as-stage-buf", "--modelbox", "--optimize-concat-split",
        "--pp-lamb-optimizer", "--safe-mode", "--sambahd", "--sambatune-graph",
        "--stop-mac-named-dims-c++", "--unroll-first", "--use-correct-tiling-cost-model",
        "--use-integrated-bias", "--weight-caching",
    ),
)  # fmt: skip

FLAGS = (*ACTING, *OF_THE_RDU)
