"""A small and complete manifest, and members, for the tests of the artifact and the command."""

from __future__ import annotations

from batucada.pef import (
    EntryRecord,
    Manifest,
    OptimizerRecord,
    ProducerRecord,
    SectionRecord,
    SlotRecord,
    StageRecord,
    SymbolRecord,
    TargetRecord,
)

MODULE_IR = """\
target triple = "x86_64-unknown-linux-gnu"

define i32 @twice(ptr noalias %x, ptr noalias %y, i64 %begin, i64 %end) {
  %value = load float, ptr %x
  %double = fadd float %value, %value
  store float %double, ptr %y
  ret i32 0
}
"""

MEMBERS = {
    "module.ll": MODULE_IR.encode(),
    "graph/00-capture.py": b"def twice(x: 'f32[1]'):\n    v0 = add(x, x)\n    return v0\n",
    "kernels.py": b"def twice(x: 'f32[1]', y: 'f32[1] inout'):\n    y[0] = add(x[0], x[0])\n",
    "object/x86-64-v3.o": bytes(range(256)),
    "constants.safetensors": b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
    "report.json": b'{"host_stages": []}\n',
}


def sample_manifest() -> Manifest:
    """A program with one training step of one weight."""
    stage = StageRecord(
        name="s0",
        kind="map",
        ops=("add",),
        kernel="twice",
        flops=6,
        bytes_read=24,
        bytes_written=24,
        parallel=False,
        sources=("model.py:3",),
    )
    weight = SymbolRecord("net__w", "parameter", "f32", (2, 3), (1, 0), 0, 64, target="w")
    return Manifest(
        producer=ProducerRecord("0.1.0", "2.9.0"),
        name="twice",
        training=True,
        trace_hash="ab" * 32,
        symbols=(
            SymbolRecord("x", "input", "f32", (6,), slot=2),
            weight,
            SymbolRecord("net__w__grad", "gradient", "f32", (2, 3), (), 0, 128, of="net__w"),
            SymbolRecord("lr", "hyper", "f32", (), slot=0, offset=0, default=0.01),
        ),
        stages=(stage,),
        sections=(SectionRecord("FWD", ("s0",)),),
        entries={"run": EntryRecord(("batucada_run",), ("s0",))},
        slots=(SlotRecord("arena", 192), SlotRecord("pool", 0), SlotRecord("x", 24)),
        target=TargetRecord("x86_64-unknown-linux-gnu", "x86-64-v3", 32),
        hyperparameters={"lr": 0.01, "max_grad_norm": float("inf")},
        optimizers=(OptimizerRecord("SGD", {"nesterov": False, "betas": [0.9]}, ("net__w",)),),
        metadata={"note": "a sample"},
        arguments={"batch_size": "1"},
        report={"host_stages": []},
    )
