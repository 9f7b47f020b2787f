"""Operations through the whole pipeline: outputs and gradients as PyTorch's eager mode gives them.

Many modules are compiled into one program, each with inputs and outputs of its own.  Tolerances are
those of float32 rounding: relative 1e-5, absolute 1e-6 (see `Case`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ops import (
    activation_cases,
    attention_cases,
    block_cases,
    complex_cases,
    control_cases,
    ctc_cases,
    distance_cases,
    flexible_cases,
    half_cases,
    image_cases,
    index_cases,
    loss_cases,
    norm_cases,
    number_cases,
    recurrent_cases,
    resample_cases,
    scatter_cases,
    sort_cases,
    transformer_cases,
)
from tests.ops.against_eager import Case, differences

TABLES: dict[str, Callable[[], list[Case]]] = {
    "special-values": activation_cases.special_values,
    "over-a-dimension": activation_cases.over_a_dimension,
    "adaptive softmax": loss_cases.adaptive,
    "layers": block_cases.layers,
    "reductions": block_cases.reductions,
    "views": block_cases.views,
    "arithmetic": block_cases.arithmetic,
    "products": block_cases.products,
    "attention-lengths": attention_cases.lengths,
    "attention-masks": attention_cases.masks,
    "attention-dtypes": attention_cases.dtypes,
    "attention-groups-and-layers": attention_cases.groups_and_layers,
    "attention-flexible": flexible_cases.cases,
    "convolutions": image_cases.convolutions,
    "convolutions-of-small-images": image_cases.small_images,
    "transposed-convolutions": image_cases.transposed,
    "pooling": image_cases.pooling,
    "numbers": number_cases.numbers,
    "lookups": index_cases.lookups,
    "embeddings": index_cases.embeddings,
    "reduced": scatter_cases.reduced,
    "scatters": scatter_cases.scatters,
    "index-additions": scatter_cases.index_additions,
    "index-assignments": scatter_cases.index_assignments,
    "scans": sort_cases.scans,
    "sorts": sort_cases.sorts,
    "selections": sort_cases.selections,
    "searches": sort_cases.searches,
    "transformers": transformer_cases.cases,
    "distances": distance_cases.distances,
    "grid-sampling": distance_cases.sampling,
    "antialiased": distance_cases.antialiased,
    "complex-arithmetic": complex_cases.arithmetic,
    "complex-products": complex_cases.products,
    "complex-views": complex_cases.views,
    "complex-of-pytorch": complex_cases.of_pytorch,
    "fourier": complex_cases.transforms,
    "spectrograms": complex_cases.spectrograms,
}
NATIVE = (
    "numbers",
    "lookups",
    "embeddings",
    "reduced",
    "scatters",
    "index-additions",
    "index-assignments",
    "scans",
    "sorts",
    "selections",
    "searches",
    "ctc-none",
    "recurrent-packed",
    "pooling",
    "distances",
    "grid-sampling",
    "antialiased",
    "complex-arithmetic",
    "complex-products",
    "complex-views",
    "fourier",
    "spectrograms",
)
"""Tables none of whose operators may be left to PyTorch."""

UNCHECKED = (
    "attention-groups-and-layers",
    "ctc-none",
    "lookups",
    "scatters",
    "scans",
    "sorts",
    "searches",
)
"""One for each kind of kernel that computes addresses, which a checked build checks."""

TABLES |= {
    "norms": norm_cases.norms,
    "interpolation": resample_cases.interpolation,
    "padding": resample_cases.padding,
    "rearrangement": resample_cases.rearrangement,
    "recurrent-cells": recurrent_cases.cells,
    "recurrent-packed": recurrent_cases.packed,
    "control-flow": control_cases.cases,
}
for _name in recurrent_cases.KINDS:
    TABLES[f"recurrent-{_name}"] = lambda k=_name: recurrent_cases.layers(k)
for _name, _dtype in half_cases.DTYPES.items():
    TABLES[f"half-{_name}"] = lambda d=_dtype: half_cases.sums_and_products(d)
for _reduction in loss_cases.REDUCTIONS:
    TABLES[f"ctc-{_reduction}"] = lambda r=_reduction: ctc_cases.cases(r)
for _shape in activation_cases.SHAPES:
    TABLES[f"pointwise-{_shape}"] = lambda shape=_shape: activation_cases.pointwise(shape)
for _reduction in loss_cases.REDUCTIONS:
    for _table in (
        loss_cases.regression,
        loss_cases.cross_entropy,
        loss_cases.classes,
        loss_cases.distances,
    ):
        TABLES[f"{_table.__name__}-{_reduction}"] = lambda t=_table, r=_reduction: t(r)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch's advice on KLDivLoss
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.filterwarnings("ignore:index_reduce.. is in beta")
@pytest.mark.filterwarnings("ignore:var\\(\\). degrees of freedom")
@pytest.mark.parametrize("table", TABLES)
def test_agrees_with_eager(table: str, tmp_path: Path) -> None:
    found = differences(TABLES[table](), tmp_path, table in NATIVE, table in UNCHECKED)
    assert not found, "\n".join(found)
