"""The loader of object code, schedules, loops and the thread pool."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batucada.codegen.llvm import emit_module
from batucada.codegen.objects import assemble, assembly
from batucada.codegen.schedule import Call, Loop, Schedule
from batucada.codegen.target import host_target, target_of
from batucada.errors import PefError
from batucada.ir.loops import Check, For, Index, Kernel, Literal, Load, Param, Register, Set, Store
from batucada.runtime.elf import LoadedObject, ObjectFile, read_object
from batucada.runtime.mcjit import JitObject
from batucada.runtime.native import NativeModule, ThreadPool
from tests.codegen.native import Array, apply, build, map_kernel, run

SIZE = 1000
POINTER, LONG = ctypes.c_void_p, ctypes.c_int64


def scale() -> Kernel:
    """y[i] = 3 x[i] + y[i], two at a time, in parallel; code 9 at the first negative x."""
    here, x = Index.of("i"), Register("xs", "f32", 2)
    spread = apply("splat", Literal(3.0, "f32"), lanes=2)
    body = (
        Set(x, Load("x", here, "f32", 2)),
        Check(apply("ge", apply("reduce_min", x), Literal(0.0, "f32")), 9),
        Store("y", here, apply("fma", x, spread, Load("y", here, "f32", 2)), 2),
    )
    params = (Param("x", "f32", SIZE), Param("y", "f32", SIZE, True))
    return Kernel("scale", params, (For("i", 0, SIZE, 2, body, parallel=True),))


def count() -> Kernel:
    one = Literal(1.0, "f32")
    return Kernel(
        "count",
        (Param("n", "f32", 1, True),),
        (Store("n", Index(), apply("add", Load("n", Index(), "f32"), one)),),
    )


SCALE = Call("scale", ((2, 0), (3, 0)), 0, SIZE, 2, parallel=True)
COUNT = Call("count", ((4, 4),))


@pytest.fixture(scope="module")
def module() -> NativeModule:
    schedules = (
        Schedule("once", (COUNT, SCALE, COUNT)),
        Loop("plain", (), (COUNT,), (COUNT,), 5),
        Loop("ends", (COUNT, COUNT), (), (), 5),
    )
    return build([scale(), count()], schedules)


@pytest.fixture
def arrays() -> tuple[Array, Array, Array]:
    x = np.arange(SIZE, dtype=np.float32)
    return x, np.ones(SIZE, np.float32), np.zeros(8, np.float32)


def table(*arrays: Array, pool: int = 0) -> Array:
    return np.array([0, pool, *(array.ctypes.data for array in arrays)], np.int64)


@pytest.fixture(params=[1, 2, 3])
def pool(request: pytest.FixtureRequest, module: NativeModule) -> Iterator[ThreadPool]:
    pool = ThreadPool(request.param, module)
    yield pool
    pool.close()


def test_a_schedule_runs_its_calls_in_order(module, arrays) -> None:
    x, y, n = arrays
    slots = table(x, y, n)
    assert module.function("once", POINTER)(slots.ctypes.data) == 0
    np.testing.assert_array_equal(y, 3 * x + 1)
    assert n.tolist() == [0, 2, 0, 0, 0, 0, 0, 0]


def test_any_number_of_threads_gives_the_same(module, arrays, pool) -> None:
    x, y, n = arrays
    slots = table(x, y, n, pool=pool.address)
    once = module.function("once", POINTER)
    for _ in range(200):
        assert once(slots.ctypes.data) == 0
    wanted = np.ones(SIZE, np.float32)
    for _ in range(200):
        wanted += 3 * x
    np.testing.assert_array_equal(y, wanted)
    assert n[1] == 400


def test_workers_that_fell_asleep_wake_up(module, arrays, pool) -> None:
    x, y, n = arrays
    slots = table(x, y, n, pool=pool.address)
    for round_ in range(1, 4):
        ctypes.CDLL(None).usleep(20_000)
        assert module.function("once", POINTER)(slots.ctypes.data) == 0
        np.testing.assert_array_equal(y, 3 * round_ * x + 1)


def test_the_first_failure_ends_the_schedule(module, arrays, pool) -> None:
    x, y, n = arrays
    x[[100, 990]] = -1
    slots = table(x, y, n, pool=pool.address)
    assert module.function("once", POINTER)(slots.ctypes.data) == 9
    assert n[1] == 1, "the call after the failed one ran"


def test_a_closed_pool_has_no_threads_left(module) -> None:
    pool = ThreadPool(3, module)
    workers = pool._workers
    assert all(worker.is_alive() for worker in workers)
    pool.close()
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_works_alone(module, arrays) -> None:
    x, y, n = arrays
    pool = ThreadPool(2, module)
    slots = table(x, y, n, pool=pool.address)
    child = os.fork()
    if child == 0:
        code = module.function("once", POINTER)(slots.ctypes.data)
        os._exit(0 if code == 0 and (y == 3 * x + 1).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.close()


@pytest.mark.parametrize(
    ("name", "steps", "counted"),
    [("plain", 0, 0), ("plain", 1, 1), ("plain", 7, 7), ("ends", 3, 2)],
)
def test_loops(module, arrays, name: str, steps: int, counted: int) -> None:
    x, y, n = arrays
    slots, strides = table(x, y, n), np.zeros(5, np.int64)
    loop = module.function(name, POINTER, POINTER, LONG)
    assert loop(slots.ctypes.data, strides.ctypes.data, steps) == 0
    assert n[1] == counted


def test_a_loop_moves_its_buffers(module, arrays) -> None:
    x, y, n = arrays
    slots, strides = table(x, y, n), np.array([0, 0, 0, 0, 4], np.int64)
    module.function("plain", POINTER, POINTER, LONG)(slots.ctypes.data, strides.ctypes.data, 5)
    assert n.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert slots[4] == n.ctypes.data + 4 * 4


def test_a_checked_build_reports_the_access() -> None:
    """The index comes from a register, so only the running program can know."""
    at = Register("at", "i64")
    body = (
        Set(at, Load("where", Index(), "i64")),
        Store("out", Index.of("at"), Literal(1.0, "f32")),
    )
    kernel = Kernel("scatter", (Param("where", "i64", 1), Param("out", "f32", 4, True)), body)
    text = emit_module([kernel], host_target(), checked=True)
    module = NativeModule.load(assemble(text.text, host_target()))
    for place, code in ((0, 0), (3, 0), (4, -1), (-1, -1), (1 << 40, -1)):
        out = np.zeros(4, np.float32)
        assert run(module, kernel, {"where": np.array([place]), "out": out}) == code
    assert text.sites[-1 - code] == "scatter: out[0 + 1*at, 1] of f32[4]"


def test_a_checked_build_that_proves_every_access_is_the_other_build() -> None:
    kernel = map_kernel("exp", "f32", 1, 8, 8, "f32")
    checked, plain = (emit_module([kernel], host_target(), checked=c) for c in (True, False))
    assert not checked.sites
    assert checked.text == plain.text


def test_the_object_needs_no_llvm_to_run(tmp_path) -> None:
    target = host_target()
    kernel = map_kernel("exp", "f32", 1, 8, 8, "f32")
    (tmp_path / "k.o").write_bytes(assemble(emit_module([kernel], target).text, target))
    program = (
        "import sys; from pathlib import Path\n"
        "from batucada.runtime.native import NativeModule as M\n"
        f"M.load(Path({str(tmp_path / 'k.o')!r}).read_bytes()).function({kernel.name!r})\n"
        "assert 'llvmlite' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


def test_an_object_that_is_loaded_is_not_kept() -> None:
    target = host_target()
    loaded = LoadedObject(assemble(emit_module([count()], target).text, target))
    assert loaded.address("count")
    assert not any(isinstance(value, ObjectFile) for value in vars(loaded).values())


def test_llvms_loader_finds_the_same_functions() -> None:
    target = host_target()
    loaded = JitObject(assemble(emit_module([count()], target).text, target))
    assert loaded.address("nothing") is None
    address = loaded.address("count")
    assert address
    n = np.zeros(1, np.float32)
    assert ctypes.CFUNCTYPE(ctypes.c_int32, POINTER, LONG, LONG)(address)(n.ctypes.data, 0, 0) == 0
    assert n[0] == 1


def test_unknown_functions_and_libraries_are_named(module) -> None:
    with pytest.raises(PefError, match="no function 'nothing'"):
        module.function("nothing")
    text = "declare void @no_such()\ndefine void @f() {\n call void @no_such()\n ret void\n}\n"
    with pytest.raises(PefError, match="no_such"):
        NativeModule.load(assemble(text, host_target()))


OBJECT = assemble(
    emit_module([scale(), map_kernel("sin", "f32", 1, 8, 8, "f32")], host_target()).text,
    host_target(),
)


@given(st.integers(0, len(OBJECT) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_harmless_to_the_reader(at: int, flip: int) -> None:
    damaged = bytearray(OBJECT)
    damaged[at] ^= flip
    with suppress(PefError):
        read_object(bytes(damaged))


@given(st.integers(0, len(OBJECT) - 1))
def test_a_truncated_object_is_refused(size: int) -> None:
    with pytest.raises(PefError):
        NativeModule.load(OBJECT[:size])


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"PK\x03\x04" * 40, bytes(4096)])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(PefError, match="damaged"):
        NativeModule.load(data)


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_the_inner_loop_of_a_product_stays_in_registers(level: str) -> None:
    """6 rows by 2 vectors: 12 products, 2 loads, 6 broadcasts from memory, and no spill; with
    AVX-512, too, in the registers and the encoding of AVX2.
    """
    text = assembly(emit_module([product()], target_of(level)).text, target_of(level))
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if "vbroadcastss" in line)
    last = max(n for n, line in enumerate(lines) if "vfmadd" in line)
    loop = "\n".join(lines[first : last + 1])
    assert (loop.count("vfmadd"), loop.count("vbroadcastss")) == (12, 6)
    assert "%rsp" not in loop
    assert "%ymm16" not in loop


def test_elementary_functions_have_the_widest_vectors() -> None:
    target = target_of("x86-64-v4")
    text = assembly(emit_module([map_kernel("tanh", "f32", 1, 64, 16, "f32")], target).text, target)
    assert "%zmm" in text


def product() -> Kernel:
    k, lanes = Index.of("k"), 8
    acc = {(i, j): Register(f"acc{i}{j}", "f32", lanes) for i in range(6) for j in range(2)}
    right = [Register(f"b{j}", "f32", lanes) for j in range(2)]
    body: list[Set] = [Set(b, Load("b", k * 16 + 8 * j, "f32", lanes)) for j, b in enumerate(right)]
    for (i, j), register in acc.items():
        left = apply("splat", Load("a", k + 64 * i, "f32"), lanes=lanes)
        body.append(Set(register, apply("fma", left, right[j], register)))
    start = [Set(r, apply("splat", Literal(0.0, "f32"), lanes=lanes)) for r in acc.values()]
    end = [Store("c", Index(i * 16 + j * 8), r, lanes) for (i, j), r in acc.items()]
    params = (Param("a", "f32", 384), Param("b", "f32", 1024), Param("c", "f32", 96, True))
    return Kernel("product", params, (*start, For("k", 0, 64, 1, tuple(body)), *end))
