"""`AccuracyReport`: what `--acc-report-json` asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sambaflow.samba.running import write_text


class AccuracyReport:
    """Metrics of a training run, as one JSON object with these names."""

    def __init__(
        self,
        val_metrics: Mapping[str, float] | None = None,
        train_metrics: Mapping[str, float] | None = None,
        batch_size: int | None = None,
        num_iterations: int | None = None,
        val_accuracy: float | None = None,
        **more: Any,
    ) -> None:
        metrics = dict(val_metrics or {})
        if val_accuracy is not None:
            metrics["acc"] = val_accuracy
        self.report = {
            "val_metrics": metrics,
            "train_metrics": dict(train_metrics or {}),
            "batch_size": batch_size,
            "num_iterations": num_iterations,
            **more,
        }

    def save(self, path: str | Path) -> None:
        """Write the report; OutputError when that fails."""
        write_text(Path(path), json.dumps(self.report, indent=1, default=float) + "\n")
