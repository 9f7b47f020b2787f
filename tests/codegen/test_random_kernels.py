"""Random kernels give the same bits and the same code compiled as interpreted, checked or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.ir.loops import Kernel
from batucada.ir.loops_eval import run_kernel
from tests.codegen.native import build, run
from tests.ir.kernels import buffers, kernels


@pytest.mark.parametrize("checked", [False, True])
@given(kernel=kernels(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_compiled_is_interpreted(checked: bool, kernel: Kernel, seed: int) -> None:
    wanted, found = buffers(seed), buffers(seed)
    with np.errstate(all="ignore"):
        code = run_kernel(kernel, wanted)
    assert run(build([kernel], checked=checked), kernel, found) == code
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=f"buffer {name}")
