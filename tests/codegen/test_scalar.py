"""Every elementwise operation, compiled, against numpy's meaning of it and against PyTorch's."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from batucada.codegen.target import host_target, runs_on, target_of
from batucada.codegen.vecmath import VECTOR_FUNCTIONS
from batucada.ir import loops_scalar
from batucada.ir.loops import BINARY_OPS, COMPARE_OPS, TERNARY_OPS, UNARY_OPS, Kernel
from batucada.ir.loops_eval import run_kernel
from batucada.ir.loops_verify import VerifyError, result_type
from batucada.ir.types import FLOATS, ITEM_BYTES, DType
from tests.codegen.native import Array, build, empty, map_kernel, run

FLOAT_EDGES = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -3.0, 7.25, 88.0, -88.0, 1e-3, -1e-3,
    1e-30,
    1e-40, -1e-40, 3e38, -3e38, 1e10, -1e10, 100.5, math.pi, -math.pi / 2, 0.925, 0.93, math.inf,
    -math.inf, math.nan, 1e-45, 2.0**-126, 1.0000001, -0.9999999, 65504.0, 65520.0, -20.0, 12.0,
    2.0**-24,
]  # fmt: skip
EXACT = frozenset(
    "neg abs sqrt reciprocal floor ceil round trunc sign isnan isinf not add sub mul div"
    " maximum minimum fmod and or xor eq ne lt le gt ge where fma remainder floor_div"
    " philox".split()
)
DTYPES: tuple[DType, ...] = tuple(ITEM_BYTES)
ARITY = {
    op: n
    for n, ops in ((1, UNARY_OPS), (2, BINARY_OPS | COMPARE_OPS), (3, TERNARY_OPS))
    for op in ops
}
LANES = 8


def legal(op: str, dtype: DType) -> DType | None:
    """The result's dtype, None when the operation does not take `dtype`."""
    try:
        args: list[tuple[DType, int]] = [(dtype, 1)] * ARITY[op]
        if op == "where":
            args[0] = ("bool", 1)
        return result_type(op, args)[0]
    except VerifyError:
        return None


CASES: list[tuple[str, DType, DType]] = [
    (op, dtype, out) for op, dtype in product(sorted(ARITY), DTYPES) if (out := legal(op, dtype))
]


def edges(dtype: DType) -> Array:
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATS:
        values = np.array(FLOAT_EDGES)
        with np.errstate(over="ignore"):
            return values.astype(loops_scalar.NUMPY[dtype])
    limits = np.iinfo(np.dtype(loops_scalar.NUMPY[dtype]).name)
    small = [v for v in (-9, -3, -2, -1, 0, 1, 2, 3, 5, 7, 100) if v >= limits.min]
    return np.array([*small, limits.min, limits.max], loops_scalar.NUMPY[dtype])


def arguments(op: str, dtype: DType) -> list[Array]:
    """Every combination of edge values, a whole number of vectors; bf16 as its bits."""
    kinds: list[DType] = ["bool" if op == "where" and n == 0 else dtype for n in range(ARITY[op])]
    values = [edges(kind)[:24] if ARITY[op] == 3 else edges(kind) for kind in kinds]
    grids = [grid.ravel() for grid in np.meshgrid(*values, indexing="ij")]
    size = -(-len(grids[0]) // LANES) * LANES
    full = [np.resize(grid, size) for grid in grids]
    return [stored(x, kind) for x, kind in zip(full, kinds, strict=True)]


def stored(values: Array, dtype: DType) -> Array:
    return loops_scalar.bf16_bits(values.astype(np.float32)) if dtype == "bf16" else values


def as_float(values: Array, dtype: DType) -> Array:
    found = loops_scalar.bf16_from_bits(values) if dtype == "bf16" else values
    return found.astype(np.float64)


def units(op: str, dtype: DType) -> float:
    """Units in the last place that a result may be off; the reference of these two is no better."""
    if op in EXACT or dtype not in FLOATS:
        return 0
    return math.inf if op in ("digamma", "lgamma") and dtype == "f64" else 2


def test_gamma_functions_in_f64(modules, kernels) -> None:
    """Against PyTorch, with an absolute share since both have roots."""
    for op, reference in (("digamma", torch.digamma), ("lgamma", torch.lgamma)):
        x = np.resize(np.array([0.1, 0.5, 0.99, 1.0, 1.4616, 2.0, 3.7, 11.0, 1e5, -0.5, -3.25]), 40)
        buffers = {"x0": x, "out": empty("f64", len(x))}
        kernel = kernels[op, "f64", LANES]
        assert run(modules["f64"], kernel, buffers) == 0
        np.testing.assert_allclose(
            buffers["out"], reference(torch.from_numpy(x)).numpy(), 1e-13, 1e-14
        )


def assert_near(actual: Array, wanted: Array, dtype: DType, units: float, what: str) -> None:
    """The same number, both NaN, or so many units in the last place apart."""
    a, w = as_float(actual, dtype), as_float(wanted, dtype)
    digits = {"f64": 52, "f32": 23, "f16": 10, "bf16": 7}.get(dtype, 0)
    smallest = {"f64": -1074, "f32": -149, "f16": -24, "bf16": -133}.get(dtype, 0)
    with np.errstate(all="ignore"):
        step = np.maximum(np.exp2(np.floor(np.log2(np.abs(w))) - digits), 2.0**smallest)
        near = np.abs(a - w) <= units * np.where(np.isfinite(step), step, 0)
    same = (a == w) | (np.isnan(a) & np.isnan(w)) | near
    assert same.all(), f"{what}: {a[~same][:5]} should be {w[~same][:5]}"


@pytest.fixture(scope="module")
def kernels() -> dict[tuple[str, DType, int], Kernel]:
    found: dict[tuple[str, DType, int], Kernel] = {}
    for op, dtype, out in CASES:
        for lanes in (1, LANES):
            size = len(arguments(op, dtype)[0])
            found[op, dtype, lanes] = map_kernel(op, dtype, ARITY[op], size, lanes, out)
    return found


@pytest.fixture(scope="module")
def modules(kernels):
    """One module for each dtype: compiling many kernels at once is fast."""
    return {dtype: build([k for (_, d, _), k in kernels.items() if d == dtype]) for dtype in DTYPES}


@pytest.mark.parametrize(("op", "dtype", "out"), CASES)
def test_compiled_is_interpreted(op: str, dtype: DType, out: DType, kernels, modules) -> None:
    args = arguments(op, dtype)
    results = []
    for lanes in (1, LANES):
        kernel = kernels[op, dtype, lanes]
        buffers = {f"x{n}": arg for n, arg in enumerate(args)} | {"out": empty(out, len(args[0]))}
        assert run(modules[dtype], kernel, buffers) == 0
        wanted = buffers | {"out": empty(out, len(args[0]))}
        assert run_kernel(kernel, wanted) == 0
        assert_near(buffers["out"], wanted["out"], out, units(op, dtype), f"{op} of {dtype}")
        results.append(buffers["out"].tobytes() if op in EXACT or dtype != "f64" else b"")
    assert results[0] == results[1], "one lane and eight give different bits"


@pytest.mark.parametrize(
    ("source", "dtype"), [(a, b) for a, b in product(DTYPES, DTYPES) if a != b]
)
def test_casts(source: DType, dtype: DType) -> None:
    values = stored(np.resize(edges(source), 64), source)
    kernels = [map_kernel("cast", source, 0, len(values), lanes, dtype) for lanes in (1, LANES)]
    levels = ["x86-64-v3", "x86-64-v2"] if runs_on(target_of("x86-64-v3"), host_target()) else []
    for target in [target_of(level) for level in levels] or [host_target()]:
        module = build(kernels, target=target)
        for kernel in kernels:
            buffers = {"x0": values, "out": empty(dtype, len(values))}
            wanted = buffers | {"out": empty(dtype, len(values))}
            assert run(module, kernel, buffers) == 0
            assert run_kernel(kernel, wanted) == 0
            assert_near(
                buffers["out"], wanted["out"], dtype, 0, f"{source} to {dtype} on {target.level}"
            )


PYTORCH_EXACT = EXACT - {"sqrt"}  # its vectorised root is a unit off here and there
TORCH = {
    "neg": torch.neg, "abs": torch.abs, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "exp": torch.exp,
    "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "log2": torch.log2, "tanh":
    torch.tanh,
    "exp2": torch.exp2, "sin": torch.sin, "erf": torch.erf, "lgamma": torch.lgamma, "round":
    torch.round,
    "sign": torch.sign, "maximum": torch.maximum, "minimum": torch.minimum,
    "pow": torch.pow, "floor_div": torch.floor_divide,
    "atan2": torch.atan2, "div": torch.div, "ne": torch.ne, "lt": torch.lt, "reciprocal":
    torch.reciprocal,
}  # fmt: skip


@pytest.mark.parametrize("op", sorted(TORCH))
def test_compiled_is_what_pytorch_gives(op: str, kernels, modules) -> None:
    args = arguments(op, "f32")
    out = legal(op, "f32")
    assert out is not None
    buffers = {f"x{n}": arg for n, arg in enumerate(args)} | {"out": empty(out, len(args[0]))}
    assert run(modules["f32"], kernels[op, "f32", LANES], buffers) == 0
    wanted = TORCH[op](*(torch.from_numpy(arg) for arg in args)).numpy()
    assert_near(buffers["out"], wanted, out, 0 if op in PYTORCH_EXACT else 5, f"{op} of f32")


@pytest.mark.parametrize("op", sorted(VECTOR_FUNCTIONS))
def test_vector_functions_over_the_whole_range(op: str) -> None:
    """Every 4,099th float, a million values: at most 1.5 units in the last place."""
    bits = np.arange(0, 1 << 32, 4099, dtype=np.uint64).astype(np.uint32)
    x = np.resize(bits, len(bits) // (2 * LANES) * 2 * LANES).view(np.float32)
    kernels = [map_kernel(op, "f32", 1, len(x), lanes, "f32") for lanes in (LANES, 2 * LANES)]
    module = build(kernels)
    buffers, wide = ({"x0": x, "out": empty("f32", len(x))} for _ in kernels)
    assert run(module, kernels[0], buffers) == run(module, kernels[1], wide) == 0
    assert buffers["out"].tobytes() == wide["out"].tobytes()
    with np.errstate(invalid="ignore"):  # some are signalling NaN
        wanted = loops_scalar.apply(op, "f64", [x.astype(np.float64)])
        error = ulps(buffers["out"].astype(np.float64), wanted)
    worst = int(np.argmax(error))
    assert error[worst] <= 1.5, f"{op}({x[worst]!r}) is {error[worst]:.2f} units off"


def ulps(actual: Array, exact: Array) -> Array:
    """Distance in units of f32's last place from a result in f64; 0 where both are NaN or equal as
    f32.
    """
    with np.errstate(all="ignore"):
        step = np.exp2(np.maximum(np.floor(np.log2(np.abs(exact))) - 23, -149))
        error = np.abs(actual - exact) / step
        same = (actual == exact.astype(np.float32)) | (np.isnan(actual) & np.isnan(exact))
    return np.where(same, 0, np.nan_to_num(error, nan=np.inf))


def test_pow_over_its_range() -> None:
    rng = np.random.default_rng(7)
    x = np.exp2(rng.uniform(-140, 127, 80_000)).astype(np.float32)
    y = (rng.uniform(-149, 128, 80_000) / np.log2(x.astype(np.float64))).astype(np.float32)
    kernel = map_kernel("pow", "f32", 2, len(x), LANES, "f32")
    buffers = {"x0": x, "x1": y, "out": empty("f32", len(x))}
    assert run(build([kernel]), kernel, buffers) == 0
    exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert ulps(buffers["out"].astype(np.float64), exact).max() <= 0.51
