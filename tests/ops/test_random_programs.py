"""Random programs of PyTorch calls - mixed dtypes, broadcasts, views, changes in place - with their
gradients, beside eager.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import batucada as bt

STEPS, MOST_ELEMENTS = 8, 500
TOLERANCE = 1e-4  # float32 rounding of sums of some hundred terms near 1
DTYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool)

Call = Callable[[Tensor, Tensor, int], Tensor]  # of two tensors of the pool and a dimension

CALLS: dict[str, Call] = {
    "add": lambda t, u, d: t + u,
    "sub": lambda t, u, d: t - u,
    "mul": lambda t, u, d: t * u,
    "div": lambda t, u, d: t / (u.abs() + 1),
    "floor_divide": lambda t, u, d: t // 3,
    "remainder": lambda t, u, d: t % -2,
    "compare": lambda t, u, d: t < u,
    "logical": lambda t, u, d: torch.logical_xor(t, u),
    "where": lambda t, u, d: torch.where(t > 0, t, u),
    "maximum": lambda t, u, d: torch.maximum(t, u),
    "smooth": lambda t, u, d: torch.tanh(t) + torch.exp(-t.abs()),
    "root": lambda t, u, d: torch.sqrt(t.abs() + 1),
    "steps": lambda t, u, d: torch.floor(t) + torch.sign(t),
    "clamp": lambda t, u, d: t.clamp(-1, 1.5),
    "gelu": lambda t, u, d: F.gelu(t),
    "lerp": lambda t, u, d: torch.lerp(t, u, 0.3),
    "to": lambda t, u, d: t.to(DTYPES[d % len(DTYPES)]),
    "sum": lambda t, u, d: t.sum(d),
    "mean": lambda t, u, d: t.mean(d, keepdim=True),
    "amax": lambda t, u, d: t.amax(d),
    "argmax": lambda t, u, d: t.argmax(d),
    "any": lambda t, u, d: t.any(d),
    "var": lambda t, u, d: t.var(d, correction=0),
    "norm": lambda t, u, d: torch.linalg.vector_norm(t, 2, d),
    "softmax": lambda t, u, d: t.softmax(d),
    "logsumexp": lambda t, u, d: t.logsumexp(d),
    "cumsum": lambda t, u, d: t.cumsum(d),
    "sort": lambda t, u, d: torch.sort(t, stable=True, dim=d).values,
    "matmul": lambda t, u, d: t @ u.transpose(-1, -2),
    "outer": lambda t, u, d: torch.outer(t.reshape(-1)[:5], u.reshape(-1)[:4]),
    "cat": lambda t, u, d: torch.cat([t, u.expand(t.shape)], d),
    "stack": lambda t, u, d: torch.stack([t, u.expand(t.shape)], d),
    "gather": lambda t, u, d: t.gather(d, torch.zeros_like(t, dtype=torch.int64)),
    "index": lambda t, u, d: t.index_select(d, torch.arange(t.shape[d]).flip(0)),
    "index_add": lambda t, u, d: t.index_add(d, torch.zeros(t.shape[d], dtype=torch.int64), t),
    "pad": lambda t, u, d: F.pad(t, (1, 2)),
    "select": lambda t, u, d: t.select(d, -1),
    "narrow": lambda t, u, d: t.narrow(d, 0, max(1, t.shape[d] - 1)),
    "transpose": lambda t, u, d: t.transpose(0, d),
    "flatten": lambda t, u, d: t.reshape(-1),
    "unsqueeze": lambda t, u, d: t.unsqueeze(d),
    "strided": lambda t, u, d: t[..., ::2],
    "flip": lambda t, u, d: t.flip(d),
    "transpose_": lambda t, u, d: t.transpose_(0, d),
    "unsqueeze_": lambda t, u, d: t.unsqueeze_(d),
    "squeeze_": lambda t, u, d: t.squeeze_(d),
    "out": lambda t, u, d: torch.mul(t.detach(), u.detach(), out=torch.empty(0, dtype=t.dtype)),
    "add_": lambda t, u, d: t.add_(u),
    "mul_": lambda t, u, d: t.mul_(0.9),
    "copy_": lambda t, u, d: t.copy_(u),
    "masked_fill_": lambda t, u, d: t.masked_fill_(t > 0.7, 0),
    "assign": lambda t, u, d: t.__setitem__(0, u.mean().to(t.dtype)) or t,
}
Step = tuple[str, int, int, int]


class Program(nn.Module):
    """Each step takes two of the tensors so far; the last ones are outputs.  In its first run a
    step that PyTorch refuses is left out.
    """

    def __init__(self, steps: Sequence[Step], shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.steps: list[Step] = list(steps)
        self.weights = nn.ParameterList([torch.full(tuple(shape), 1.1) for shape in shapes])

    def settle(self, inputs: Sequence[Tensor]) -> None:
        pool = self._begun(inputs)
        self.steps = [step for step in self.steps if self._taken(step, pool)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        pool = self._begun(inputs)
        for step in self.steps:
            self._take(step, pool)
        last = pool[-3:]
        parts = [((weight - 1) ** 2).sum() for weight in self.weights]
        parts += [
            torch.sin(out.to(parts[0].dtype)).mean() for out in last if out.dtype.is_floating_point
        ]
        return (torch.stack(parts).sum(), *(out.detach().clone() for out in last))

    def _begun(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [x * weight for x, weight in zip(inputs, self.weights, strict=True)]

    def _take(self, step: Step, pool: list[Tensor]) -> None:
        name, first, second, dim = step
        t, u = pool[-1 - first % len(pool)], pool[-1 - second % len(pool)]
        pool.append(CALLS[name](t, u, dim % max(t.dim(), 1)))

    def _taken(self, step: Step, pool: list[Tensor]) -> bool:
        try:
            self._take(step, pool)
        except (RuntimeError, IndexError, TypeError):
            return False
        if pool[-1].numel() > MOST_ELEMENTS:
            pool.pop()
            return False
        return True


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, tuple[Tensor, ...]]:
    whole = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    shapes = []
    for _ in range(draw(st.integers(2, 3))):
        kept = draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole)))
        shape = [extent if keep else 1 for extent, keep in zip(whole, kept, strict=True)]
        shapes.append(shape[draw(st.integers(0, 1)) :])
    number = st.integers(0, 5)
    step = st.tuples(st.sampled_from(sorted(CALLS)), number, number, number)
    steps = draw(st.lists(step, min_size=2, max_size=STEPS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    program = Program(steps, shapes)
    program.settle(inputs)
    return program, inputs


def _eager(model: Program, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]] | None:
    """Results and gradients; None where autograd refuses the program."""
    try:
        results = model(*inputs)
        gradients = torch.autograd.grad(results[0], [*model.weights])
    except RuntimeError:
        return None
    return [result.detach() for result in results], list(gradients)


def _alike(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return all(
        torch.allclose(a.double(), b.double(), TOLERANCE, TOLERANCE, equal_nan=True)
        for a, b in zip(found, wanted, strict=True)
    )


@settings(max_examples=30)
@given(programs())
def test_as_eager(case: tuple[Program, tuple[Tensor, ...]]) -> None:
    model, inputs = case
    wanted = _eager(model, inputs)
    exact = _eager(deepcopy(model).double(), [x.double() for x in inputs])
    assume(wanted is not None)
    assert wanted is not None
    well_posed = exact is not None and _alike([*wanted[0], *wanted[1]], [*exact[0], *exact[1]])
    assume(well_posed)
    named = tuple(bt.NamedTensor(f"x{i}", x) for i, x in enumerate(inputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.pef"
        bt.compile(model, named, optimizers=[optimizer], loss_indices=[0], path=path)
        program = bt.load(path)
    program.attach(model, named, optimizers=[optimizer])
    results = [r.tensor() for r in program.run([x.name for x in named], inputs)]
    assert [r.dtype for r in results] == [r.dtype for r in wanted[0]]
    assert _alike(results, wanted[0])
    names = [bt.symbol_name(model, f"weights.{i}") for i in range(len(inputs))]
    assert _alike([program.gradient(name) for name in names], wanted[1])
