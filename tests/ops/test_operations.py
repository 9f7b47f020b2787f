"""Every operation of a graph by itself: type rule, reference, native code and PyTorch agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batucada.ir.graph import Graph, Node, Output, graph_of, input_node
from batucada.ir.text import parse_graph, print_graph
from batucada.ir.types import TORCH_NAMES, DType, Type
from batucada.ir.verify import verify
from batucada.ops import OPS, base, make
from batucada.ops.base import NUMPY
from batucada.passes.simplify import simplify
from batucada.runtime.oracle import evaluate
from tests.runtime.native_graph import NativeGraph

Array = np.ndarray[Any, np.dtype[Any]]
Result = dict[tuple[str, str], Array]

RTOL: dict[DType, float] = {"f32": 2e-6, "f64": 1e-13}
"""A few units in the last place: none of the three rounds elementary functions correctly."""

TINY = 1e-38
"""Below float32's smallest normal number nothing has full precision."""

SPECIAL = (
    0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5, -2.5, 10.0, -3.75, 1e-30, 1e20, -1e20,
    np.inf, -np.inf, np.nan,
)  # fmt: skip

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
EXACT_BINARY = (
    "add",
    "sub",
    "mul",
    "maximum",
    "minimum",
    "fmod",
    "remainder",
    "floor_div",
    *COMPARISONS,
)
FLOAT_BINARY = (*EXACT_BINARY, "div", "atan2")
BITWISE = ("and", "or", "xor", "shl", "shr")
INTEGER = {1: ("neg", "abs", "sign", "copy"), 2: (*EXACT_BINARY, "div", *BITWISE)}
BOOLEAN = {1: ("not", "copy"), 2: ("and", "or", "xor", "eq", "ne")}
NOT_UNARY = {*FLOAT_BINARY, *BITWISE, "pow", "not", "where", "cast", "check_index", "philox"}
MAPS = tuple(name for name, op in OPS.whole().items() if op.kind == "map")
UNARY = tuple(name for name in MAPS if name not in NOT_UNARY)

TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "not": torch.logical_not,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift,
    "floor_div": torch.floor_divide,
    "copy": torch.clone,
    "div": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
}


def operands(dtype: DType, arity: int) -> list[Array]:
    """All combinations of interesting values."""
    if dtype in ("f32", "f64"):  # PyTorch's fmod(1e20, 1e-30) is NaN
        values: Any = SPECIAL if arity == 1 else tuple(v for v in SPECIAL if v != 1e-30)
    else:
        values = (
            (False, True)
            if dtype == "bool"
            else (1, 2, 3, 7, *(() if dtype == "u8" else (-1, -2, -7)))
        )
    columns = list(zip(*itertools.product(values, repeat=arity), strict=True))
    return [np.array(column, NUMPY[dtype]) for column in columns]


def one_op_each(names: tuple[str, ...], arrays: list[Array], dtype: DType) -> Graph:
    """A graph with an output for each operation, called `_` and its name."""
    inputs = [input_node(f"x{i}", Type(dtype, a.shape)) for i, a in enumerate(arrays)]
    outputs = [Output(f"_{name}", "output", make(name, *inputs)) for name in names]
    return verify(graph_of("ops", inputs, outputs))


def native(graph: Graph, arrays: dict[str, Array]) -> Result:
    found = NativeGraph(graph, arrays)
    assert found.call("step") == 0
    return found.results()


def assert_agree(graph: Graph, arrays: dict[str, Array], rtol: float) -> Result:
    """Type rule, reference and native code; gives the native results."""
    expected = evaluate(graph, arrays)
    for output in graph.outputs:
        reference = expected["output", output.name]
        assert (reference.shape, reference.dtype) == (
            output.node.type.shape,
            NUMPY[output.node.type.dtype],
        )
    got = native(verify(simplify(graph)), arrays)
    for (role, name), value in expected.items():
        np.testing.assert_allclose(got[role, name], value, rtol, TINY, err_msg=name)
    again = parse_graph(print_graph(graph))
    assert print_graph(verify(again)) == print_graph(graph)
    return got


def check_maps(names: tuple[str, ...], dtype: DType, arity: int) -> None:
    arrays = operands(dtype, arity)
    rtol = RTOL.get(dtype, 0.0)
    got = assert_agree(
        one_op_each(names, arrays, dtype), {f"x{i}": a for i, a in enumerate(arrays)}, rtol
    )
    for name in names:
        function = TORCH.get(name) or getattr(torch, name)
        expected = function(*(torch.from_numpy(a) for a in arrays)).numpy()
        np.testing.assert_allclose(
            got["output", f"_{name}"], expected, 4 * rtol, TINY, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_unary_maps_of_floats(dtype: DType) -> None:
    check_maps(UNARY, dtype, 1)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_binary_maps_of_floats(dtype: DType) -> None:
    check_maps(FLOAT_BINARY, dtype, 2)


def test_powers() -> None:
    check_maps(("pow",), "f32", 2)


@pytest.mark.parametrize("arity", [1, 2])
@pytest.mark.parametrize("dtype", ["i64", "i32", "u8"])
def test_maps_of_integers(dtype: DType, arity: int) -> None:
    check_maps(INTEGER[arity], dtype, arity)


@pytest.mark.parametrize("arity", [1, 2])
def test_maps_of_booleans(arity: int) -> None:
    check_maps(BOOLEAN[arity], "bool", arity)


def test_every_module_of_operations_is_found() -> None:
    modules = {path.stem for path in Path(base.__file__).parent.glob("*.py")}
    assert {*base.MODULES, "base", "__init__"} == modules


def test_every_map_is_tested() -> None:
    tested = {
        *UNARY,
        *FLOAT_BINARY,
        *INTEGER[2],
        *BOOLEAN[1],
        "pow",
        "where",
        "cast",
        "check_index",
        "philox",
    }
    assert tested == set(MAPS)


@pytest.mark.parametrize("source", ["f32", "f64", "i64", "i32", "u8", "bool"])
def test_casts(source: DType) -> None:
    (array,) = operands(source, 1)
    if array.dtype.kind == "f":
        array = array[np.abs(array) < 100]  # PyTorch does not define what does not fit
    x = input_node("x", Type(source, array.shape))
    targets: tuple[DType, ...] = ("f32", "f64", "i64", "i32", "bool")
    outputs = [Output(to, "output", make("cast", x, dtype=to)) for to in targets]
    got = assert_agree(verify(graph_of("casts", [x], outputs)), {"x": array}, 0.0)
    for to in targets:
        expected = torch.from_numpy(array).to(getattr(torch, TORCH_NAMES[to])).numpy()
        np.testing.assert_array_equal(got["output", to], expected, err_msg=to)


def test_philox_gives_the_published_words() -> None:
    """The known answers of Random123, the authors' own implementation."""
    known = {
        "low": [0, 0xFFFFFFFF, 0x243F6A88],
        "high": [0, 0xFFFFFFFF, 0x85A308D3],
        "key": [0, 0xFFFFFFFF, 0x13198A2E],
    }
    arrays = {name: np.array(words, np.uint32).view(np.int32) for name, words in known.items()}
    inputs = [input_node(name, Type("i32", (3,))) for name in arrays]
    graph = graph_of("philox", inputs, [Output("word", "output", make("philox", *inputs))])
    got = assert_agree(verify(graph), arrays, 0.0)["output", "word"]
    assert got.view(np.uint32).tolist() == [0xFF1DAE59, 0x2C3F628B, 0xDD7CE038]


def test_where_and_an_index_check() -> None:
    c = input_node("c", Type("bool", (2, 1)))
    x, y = input_node("x", Type("f32", (2, 5))), input_node("y", Type("f32", (5,)))
    i = input_node("i", Type("i64", (5,)))
    outputs = [
        Output("where", "output", make("where", c, x, y)),
        Output("check", "output", make("check_index", i, size=4, ignore=-100, low=0)),
    ]
    values = {
        "c": np.array([[True], [False]]),
        "x": np.full((2, 5), np.nan, np.float32),
        "y": np.arange(5, dtype=np.float32),
        "i": np.array([0, 3, -100, 1, 2]),
    }
    graph = verify(graph_of("f", [c, x, y, i], outputs))
    assert_agree(graph, values, 0.0)
    for bad in (4, -1, 2**40):
        broken = NativeGraph(graph, values | {"i": np.array([0, 3, -100, 1, bad])})
        assert broken.call("step") == 1
        with pytest.raises(IndexError, match=str(bad)):
            evaluate(graph, values | {"i": np.array([bad] * 5)})


def _lookup_graph() -> tuple[Graph, dict[str, Array]]:
    """take and put along one dimension and along two, with indices that broadcast."""
    x, y = input_node("x", Type("f32", (5, 3, 16))), input_node("y", Type("f32", (4, 3, 16)))
    row, place = (
        input_node("row", Type("i64", (4, 1, 1))),
        input_node("place", Type("i64", (4, 3, 16))),
    )
    outputs = [
        Output("rows", "output", make("take", x, row, dims=(0,))),
        Output("places", "output", make("take", x, place, dims=(0,))),
        Output("pairs", "output", make("take", x, row, place, dims=(0, 1))),
        Output("of_exp", "output", make("take", make("exp", x), row, dims=(0,))),
    ]
    for mode in ("assign", "add", "mul", "maximum", "minimum"):
        outputs += [
            Output(f"rows_{mode}", "output", make("put", x, y, row, dims=(0,), mode=mode)),
            Output(f"places_{mode}", "output", make("put", x, y, place, dims=(0,), mode=mode)),
            Output(
                f"pairs_{mode}", "output", make("put", x, y, row, place, dims=(0, 1), mode=mode)
            ),
        ]
    random = np.random.default_rng(5)
    return verify(graph_of("lookups", [x, y, row, place], outputs)), {
        "x": random.integers(-4, 5, (5, 3, 16)).astype(np.float32),
        "y": random.integers(-4, 5, (4, 3, 16)).astype(np.float32),
        "row": random.integers(0, 5, (4, 1, 1)),
        "place": random.integers(0, 5, (4, 3, 16)),
    }


def test_lookups_and_puts() -> None:
    graph, values = _lookup_graph()
    assert_agree(graph, values, 2e-6)


def test_scans_and_sorts() -> None:
    """Along each dimension; of small numbers, so that every sum is exact, and with ties."""
    random = np.random.default_rng(7)
    for dtype in ("f32", "f64", "i64", "i32"):
        x = input_node("x", Type(dtype, (3, 5, 41)))
        outputs = [
            Output(f"{by}_{dim}", "output", make("scan", x, dim=dim, by=by))
            for by in ("add", "maximum", "minimum", *(("mul",) if dtype[0] == "i" else ()))
            for dim in range(3)
        ]
        for way in (False, True):
            order = make("argsort", x, descending=way)
            values = make("take", x, order, dims=(2,))
            outputs += [Output(f"order_{way}", "output", order)]
            outputs += [Output(f"values_{way}", "output", values)]
        rising = make("take", x, make("argsort", x, descending=False), dims=(2,))
        for right in (False, True):
            found = make("searchsorted", rising, make("flip", x, dims=(2,)), right=right)
            outputs.append(Output(f"found_{right}", "output", found))
        values = {"x": random.integers(-4, 5, (3, 5, 41)).astype(NUMPY[dtype])}
        assert_agree(verify(graph_of("scans", [x], outputs)), values, 0.0)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_paths_through_a_lattice(dtype: DType) -> None:
    """With positions that no path reaches, and frames that no path survives."""
    random = np.random.default_rng(11)
    for batch, frames, positions in ((1, 1, 1), (3, 6, 7), (2, 9, 21), (2, 0, 3)):
        emission = input_node("emission", Type(dtype, (batch, frames, positions)))
        skips = input_node("skips", Type("bool", (batch, positions)))
        chances = random.normal(size=emission.type.shape).astype(NUMPY[dtype])
        chances[random.random(chances.shape) < 0.2] = -np.inf
        values = {"emission": chances, "skips": random.random((batch, positions)) < 0.5}
        outputs = [Output("paths", "output", make("ctc", emission, skips))]
        assert_agree(verify(graph_of("paths", [emission, skips], outputs)), values, 4e-6)


def test_an_index_out_of_range_never_leaves_the_tensor() -> None:
    """Without a check, too: the nearest place is taken, in the checked build without an error."""
    graph, values = _lookup_graph()
    for wild in (-1, 5, 2**40, -(2**62)):
        row, place = values["row"].copy(), values["place"].copy()
        row[1], place[::2, 1, 3:] = wild, wild
        assert_agree(graph, values | {"row": row, "place": place}, 2e-6)


REDUCED = ((1,), (7,), (33,), (1, 1), (3, 1), (1, 3), (5, 70), (2, 3, 4), (9, 2, 33))


@pytest.mark.parametrize("shape", REDUCED, ids=str)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i64"])
def test_reductions(shape: tuple[int, ...], dtype: DType) -> None:
    """Of small integers, so that every order of adding gives the same bits; over all dims."""
    x = input_node("x", Type(dtype, shape))
    dims = [
        d for n in range(1, len(shape) + 1) for d in itertools.combinations(range(len(shape)), n)
    ]
    outputs = [
        Output(f"{name}_{'_'.join(map(str, d))}", "output", make(name, x, dims=d))
        for name in ("sum", "amax", "amin")
        for d in dims
    ]
    array = np.random.default_rng(3).integers(-5, 6, shape).astype(NUMPY[dtype])
    assert_agree(verify(graph_of("reductions", [x], outputs)), {"x": array}, 0.0)


def test_products_and_extremes_of_special_values() -> None:
    x = input_node("x", Type("f32", (3, 9)))
    outputs = [
        Output(name, "output", make(name, x, dims=(1,))) for name in ("prod", "amax", "amin", "sum")
    ]
    array = np.linspace(-1.5, 2, 27, dtype=np.float32).reshape(3, 9)
    array[0, 4], array[1, 8] = np.nan, -np.inf
    assert_agree(verify(graph_of("special", [x], outputs)), {"x": array}, 1e-6)


VIEWS: dict[str, Callable[[Node], Node]] = {
    "reshape": lambda x: make("reshape", x, shape=(6, 4)),
    "reshape flat": lambda x: make("reshape", x, shape=(24,)),
    "reshape with ones": lambda x: make("reshape", x, shape=(2, 1, 3, 4, 1)),
    "permute": lambda x: make("permute", x, dims=(2, 0, 1)),
    "permute, reshape": lambda x: make("reshape", make("permute", x, dims=(1, 0, 2)), shape=(6, 4)),
    "expand": lambda x: make("expand", x, shape=(5, 2, 3, 4)),
    "slice": lambda x: make("slice", x, dim=2, start=1, stop=4, step=2),
    "slice of none": lambda x: make("slice", x, dim=1, start=1, stop=1, step=1),
    "flip": lambda x: make("flip", x, dims=(0, 2)),
    "cat": lambda x: make("cat", x, make("flip", x, dims=(1,)), dim=1),
}


def test_views() -> None:
    """Each by itself and below a map, where it becomes part of an index."""
    x = input_node("x", Type("f32", (2, 3, 4)))
    outputs = []
    for name, view in VIEWS.items():
        symbol = name.replace(", ", "_").replace(" ", "_")
        outputs.append(Output(symbol, "output", view(x)))
        outputs.append(Output(f"neg_{symbol}", "output", make("neg", view(make("exp", x)))))
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
    assert_agree(verify(graph_of("views", [x], outputs)), {"x": array}, 2e-6)


def test_created_values() -> None:
    outputs = [
        Output("iota", "output", make("iota", size=7)),
        Output("nan", "output", make("constant", value=float("nan"), dtype="f32")),
        Output("yes", "output", make("constant", value=True, dtype="bool")),
        Output(
            "many", "output", make("expand", make("constant", value=2.5, dtype="f64"), shape=(3, 9))
        ),
    ]
    assert_agree(verify(graph_of("created", [], outputs)), {}, 0.0)


SIZES = ((1, 1, 1), (1, 7, 10), (7, 1, 33), (33, 10, 1), (7, 33, 10), (3, 784, 32), (130, 5, 17))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(size: tuple[int, int, int]) -> None:
    """Operands as they are and turned; small integers, so that the sums are exact."""
    m, k, n = size
    shapes = {"a": (m, k), "b": (k, n), "at": (k, m), "bt": (n, k)}
    nodes = {name: input_node(name, Type("f32", shape)) for name, shape in shapes.items()}
    turned = {name: make("permute", nodes[f"{name}t"], dims=(1, 0)) for name in ("a", "b")}
    outputs = [
        Output(f"y{i}{j}", "output", make("matmul", a, b))
        for i, a in enumerate((nodes["a"], turned["a"]))
        for j, b in enumerate((nodes["b"], turned["b"]))
    ]
    random = np.random.default_rng(1)
    values = {n: random.integers(-3, 4, s).astype(np.float32) for n, s in shapes.items()}
    assert_agree(verify(graph_of("products", nodes.values(), outputs)), values, 0.0)
