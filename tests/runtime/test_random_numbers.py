"""Random operators: what they draw, that a run's backward pass sees what its forward drew, and
that the same seed gives the same bits however a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import batucada as bt
from batucada.errors import BatucadaError
from tests.ops.against_eager import Each, Function

SEED = 20
COUNT = 40_000


def compiled(
    model: nn.Module,
    x: torch.Tensor,
    folder: Path,
    train: bool = True,
    threads: int = 1,
    **options: Any,
) -> Any:
    """A program of model(x), in training with an SGD of rate 0.1."""
    torch.manual_seed(SEED)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)] if train else []
    named = (bt.NamedTensor("x", x),)
    chosen = bt.Options(threads=threads, **options)
    path = folder / "model.pef"
    bt.compile(model, named, optimizers=optimizers, path=path, options=chosen)
    program = bt.load(path, chosen)
    program.attach(model, named, optimizers=optimizers)
    return program


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 256)
        self.first, self.second = nn.Dropout(0.25), nn.Dropout(0.5)
        self.outer = nn.Linear(256, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(torch.tanh(self.inner(x)))
        return self.second(self.outer(h)).square().mean()


def net() -> Net:
    torch.manual_seed(1)
    return Net()


X = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def losses(program: Any, steps: int, sections: Sequence[Sequence[str] | None] = (None,)) -> Any:
    found = []
    for _ in range(steps):
        for part in sections:
            results = program.run(["x"], [X], part)
        found.append(results[0].tensor().clone())
    return torch.stack(found)


FORMS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...], int]] = {
    "dropout": (lambda x: functional.dropout(x, 0.3), (200, 50), 2),
    "in place": (lambda x: functional.dropout(x * 1, 0.3, inplace=True), (200, 50), 2),
    "native": (lambda x: torch.native_dropout(x, 0.3, True)[0], (200, 50), 2),
    "1d": (nn.Dropout1d(0.3), (100, 50, 3), 2),
    "2d": (nn.Dropout2d(0.3), (100, 50, 3, 2), 2),
    "3d": (nn.Dropout3d(0.3), (100, 50, 2, 1, 3), 2),
}
"""Function, shape of its input, and how many dimensions are dropped one by one."""


def test_forms_of_dropout_keep_and_scale(tmp_path: Path) -> None:
    cases = list(FORMS.values())
    model = Each([Function(f) for f, _, _ in cases])
    xs = [torch.ones(shape, requires_grad=True) for _, shape, _ in cases]
    named = [[bt.NamedTensor(f"x{i}", x)] for i, x in enumerate(xs)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    path = tmp_path / "forms.pef"
    bt.compile(model, (named,), optimizers=[optimizer], path=path, loss_indices=range(len(cases)))
    torch.manual_seed(SEED)
    program = bt.load(path)
    results = program.run([f"x{i}" for i in range(len(xs))], [x.detach() for x in xs])
    for i, (_, shape, own) in enumerate(cases):
        y = results[i].tensor()
        kept = y.reshape(*shape[:own], -1).ne(0)
        assert torch.equal(y, torch.where(y != 0, 1 / 0.7, 0.0).float()), "kept ones are scaled"
        assert torch.equal(kept.all(-1), kept.any(-1)), "a feature is one decision"
        assert abs(kept.float().mean() - 0.7) < 0.02
        gradient = program.gradient(f"x{i}")
        torch.testing.assert_close(gradient * y.numel(), y, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_alpha_dropout_keeps_mean_and_variance(form: Any, tmp_path: Path) -> None:
    x = torch.randn(400, 100, 4, generator=torch.Generator().manual_seed(2))
    program = compiled(form(0.2).train(), x, tmp_path, train=False)
    y = program.run(["x"], [x])[0].tensor()
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.03
    assert torch.equal(program.run(["x"], [x], hyper={"p": 0.0})[0].tensor(), x)
    assert not program.run(["x"], [x], hyper={"p": 1.0})[0].tensor().any()


SQRT_TWO = 2**0.5
DRAWS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Any], Any]]] = {
    "rand": (lambda x: torch.rand(COUNT), lambda v: v),
    "rand_like": (lambda x: torch.rand_like(x.double()), lambda v: v),
    "uniform_": (lambda x: torch.empty_like(x).uniform_(-2, 3), lambda v: (v + 2) / 5),
    "randn": (lambda x: torch.randn(COUNT), lambda v: (1 + torch.erf(v / SQRT_TWO)) / 2),
    "randn double": (
        lambda x: torch.randn(COUNT, dtype=torch.float64),
        lambda v: (1 + torch.erf(v / SQRT_TWO)) / 2,
    ),
    "normal_": (
        lambda x: torch.empty_like(x).normal_(2, 3),
        lambda v: (1 + torch.erf((v - 2) / 3 / SQRT_TWO)) / 2,
    ),
    "normal": (
        lambda x: torch.normal(x * 0 + 1, 0.5),
        lambda v: (1 + torch.erf((v - 1) * 2 / SQRT_TWO)) / 2,
    ),
    "exponential_": (lambda x: torch.empty_like(x).exponential_(2), lambda v: 1 - (-2 * v).exp()),
    "cauchy_": (lambda x: torch.empty_like(x).cauchy_(1, 2), lambda v: ((v - 1) / 2).atan() / np.pi
                + 0.5),
    "log_normal_": (
        lambda x: torch.empty_like(x).log_normal_(0, 1),
        lambda v: (1 + torch.erf(v.log() / SQRT_TWO)) / 2,
    ),
    "gamma, by PyTorch": (
        lambda x: torch.distributions.Gamma(x + 2.5, x + 1).rsample(),
        lambda v: torch.special.gammainc(torch.tensor(2.5, dtype=v.dtype), v),
    ),
    "rrelu": (
        lambda x: functional.rrelu(x * 0 - 1, 0.25, 0.75, training=True),
        lambda v: (v + 0.75) * 2,
    ),
}  # fmt: skip
"""What draws, and its distribution function."""


def test_draws_have_their_distribution(tmp_path: Path) -> None:
    """Kolmogorov's distance of the empirical from the exact distribution function."""
    functions = list(DRAWS.values())
    model = Function(lambda x: tuple(draw(x) for draw, _ in functions))  # type: ignore[arg-type]
    x = torch.zeros(COUNT)
    results = compiled(model, x, tmp_path, train=False).run(["x"], [x])
    for name, (_, distribution), result in zip(DRAWS, functions, results, strict=True):
        expected = distribution(result.tensor().double()).sort().values
        distance = (expected - (torch.arange(COUNT) + 0.5) / COUNT).abs().max()
        assert distance * COUNT**0.5 < 1.95, name  # one in a thousand is above


def test_integers_and_choices(tmp_path: Path) -> None:
    def draws(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        chance = torch.tensor([0.5, 0.0, 0.2, 0.3])
        return (
            torch.randint(-3, 5, (COUNT,)), torch.randint_like(x, 4), x.long().random_(0, 2**40),
            torch.bernoulli(x + 0.3), torch.empty_like(x).bernoulli_(0.6), torch.bernoulli(x, 0.9),
            torch.multinomial(chance, COUNT, replacement=True),
            torch.multinomial(chance.expand(COUNT, 4), 1), torch.randperm(9000),
            torch.empty_like(x).geometric_(0.25), torch.rand(COUNT, dtype=torch.bfloat16),
            torch.multinomial(chance.expand(COUNT, 4), 2), torch.poisson(x + 5),
            torch.distributions.Dirichlet(torch.ones(COUNT, 3)).rsample(),
        )  # fmt: skip

    x = torch.zeros(COUNT)
    program = compiled(Function(draws), x, tmp_path, train=False)  # type: ignore[arg-type]
    found = [result.tensor() for result in program.run(["x"], [x])]
    shares = found[0].add(3).bincount(minlength=8) / COUNT
    assert shares.sub(1 / 8).abs().max() < 0.01
    assert len(shares) == 8
    assert sorted(found[1].unique().tolist()) == [0, 1, 2, 3]
    assert 0 <= found[2].min() < found[2].max() < 2**40
    assert abs(found[2].double().mean() / 2**39 - 1) < 0.02
    for values, chance in ((found[3], 0.3), (found[4], 0.6), (found[5], 0.9)):
        assert sorted(values.unique().tolist()) == [0, 1]
        assert abs(values.mean() - chance) < 0.01
    for picked in (found[6], found[7].flatten()):
        shares = picked.bincount(minlength=4) / COUNT
        assert (shares - torch.tensor([0.5, 0.0, 0.2, 0.3])).abs().max() < 0.01
        assert shares[1] == 0
    assert found[8].sort().values.equal(torch.arange(9000))
    assert not found[8].equal(torch.arange(9000))
    assert abs(found[9].mean() - 4) < 0.1
    assert found[9].min() == 1
    assert found[10].max() < 1
    assert abs(found[10].float().mean() - 0.5) < 0.01
    first, second = found[11].t()
    assert not (first == second).any()
    after_the_likeliest = second[first == 0].bincount(minlength=4) / (first == 0).sum()
    assert (after_the_likeliest - torch.tensor([0.0, 0.0, 0.4, 0.6])).abs().max() < 0.02
    assert abs(found[12].mean() - 5) < 0.05
    assert abs(found[12].var() - 5) < 0.2
    assert (found[13].sum(1) - 1).abs().max() < 1e-6
    assert abs(found[13].var() - 1 / 18) < 0.001


def test_the_gradient_of_what_pytorch_draws(tmp_path: Path) -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape = nn.Parameter(torch.linspace(0.5, 9, 50))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            drawn = torch.distributions.Gamma(self.shape, x).rsample()
            return drawn.sum(), drawn

    model = Drawn()
    program = compiled(model, torch.ones(50), tmp_path)
    for _ in range(2):
        alpha = program.value("drawn__shape").clone()
        _, drawn = program.run(["x"], [torch.ones(50)])
        expected = torch.ops.aten._standard_gamma_grad(alpha, drawn.tensor())
        torch.testing.assert_close(program.gradient("drawn__shape"), expected)


def test_streams_runs_and_seeds_differ(tmp_path: Path) -> None:
    x = torch.zeros(COUNT)
    model = Function(lambda x: (torch.rand(COUNT), torch.poisson(x + 50)))  # type: ignore[arg-type]
    program = compiled(model, x, tmp_path, train=False)
    drawn = [r.tensor().clone() for _ in range(2) for r in program.run(["x"], [x])]
    program.seed(SEED + 1)
    drawn += [r.tensor().clone() for r in program.run(["x"], [x])]
    assert torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0).abs().max() < 0.03
    program.seed(SEED)
    again = [r.tensor().clone() for _ in range(2) for r in program.run(["x"], [x])]
    assert all(a.equal(b) for a, b in zip(again, drawn, strict=False))


def test_the_same_seed_gives_the_same_steps(tmp_path: Path) -> None:
    program = compiled(net(), X, tmp_path)
    expected = losses(program, 4)
    assert len(expected.unique()) == 4
    split = compiled(net(), X, tmp_path)
    parts = losses(split, 4, (["FWD"], ["BCKWD"], ["OPT"]))
    torch.testing.assert_close(parts, expected, rtol=1e-5, atol=0)
    variants: list[dict[str, Any]] = [{"threads": 2}, {"checked": True}, {"oracle": True}]
    for options in variants:
        other = compiled(net(), X, tmp_path, **options)
        torch.testing.assert_close(losses(other, 4), expected, rtol=1e-5, atol=0)
    many = compiled(net(), X, tmp_path)
    (stacked,) = many.run_steps(["x"], [X.expand(4, *X.shape).contiguous()])
    torch.testing.assert_close(stacked, expected, rtol=1e-5, atol=0)


def test_gradients_read_later_are_those_of_the_run(tmp_path: Path) -> None:
    model = net()
    name = bt.symbol_name(model, "inner.weight")
    whole, split = compiled(model, X, tmp_path), compiled(net(), X, tmp_path)
    for _ in range(2):
        losses(whole, 1)
        losses(split, 1, (["FWD"], ["BCKWD"], ["OPT"]))
        torch.testing.assert_close(whole.gradient(name), split.gradient(name))


def test_rates_are_run_time_values(tmp_path: Path) -> None:
    model = net()
    program = compiled(model, X, tmp_path)
    first, second = program.dropout_rates
    assert [program.hyperparameters[n] for n in ("p", first, second)] == [0.25, 0.25, 0.5]
    plain = program.run(["x"], [X], ["FWD"], {"p": 0.0})[0].tensor()
    torch.testing.assert_close(plain, model.eval()(X), rtol=1e-5, atol=1e-6)
    assert program.run(["x"], [X], ["FWD"])[0].tensor() == plain, "the last rate stays"
    program.run(["x"], [X], ["FWD", "BCKWD"], {second: 1.0})
    assert program.read(program.outputs[0].name) == 0
    gradient = program.gradient(bt.symbol_name(model, "inner.weight"))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_generator_can_be_saved(tmp_path: Path) -> None:
    program = compiled(net(), X, tmp_path)
    names = [s.name for s in program.manifest.of_role("state", "parameter")]
    losses(program, 2)
    saved = {name: program.read(name) for name in names}
    expected = losses(program, 2)
    other = compiled(net(), X, tmp_path)
    other.seed(SEED + 1)
    for name, value in saved.items():
        other.write(name, value)
    assert torch.equal(losses(other, 2), expected)


def test_evaluation_draws_nothing(tmp_path: Path) -> None:
    model = net().eval()
    program = compiled(model, X, tmp_path, train=False)
    assert program.dropout_rates == ()
    assert "philox" not in {op for stage in program.manifest.stages for op in stage.ops}
    torch.testing.assert_close(program.run(["x"], [X])[0].tensor(), model(X))


def test_attention_drops_weights(tmp_path: Path) -> None:
    """Rows of weights, read through the identity as values, sum to 1 on average."""
    x = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(3))

    def weights(x: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(16).expand(8, 4, 16, 16)
        return functional.scaled_dot_product_attention(x, x, eye, dropout_p=0.25)

    program = compiled(Function(weights), x, tmp_path, train=False)
    found = program.run(["x"], [x])[0].tensor()
    whole = program.run(["x"], [x], hyper={"p": 0.0})[0].tensor()
    torch.testing.assert_close(whole, weights_of(x))
    kept = found != 0
    torch.testing.assert_close(found, torch.where(kept, whole / 0.75, 0.0))
    assert abs(kept.float().mean() - 0.75) < 0.02


def weights_of(x: torch.Tensor) -> torch.Tensor:
    return (x @ x.mT / 4).softmax(-1)


class Recomputed(nn.Module):
    """Two layers of squares and noise; gives the loss and what is left of the squares."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 64))
        self.options = options

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept = [checkpoint(self.dropped, x * scale, **self.options) for scale in self.scale]
        return kept[0].sum() + kept[1].sum(), *kept  # type: ignore[union-attr]

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.alpha_dropout(functional.dropout(x * x, 0.5), 0.3, True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_draws_again(reentrant: bool, tmp_path: Path) -> None:
    """Of y = a d(x^2) + b, with a and d the factors of a run, x dy/dx is 2 (y - b)."""
    model, x = Recomputed(use_reentrant=reentrant), X[:2].repeat(100, 1).abs() + 0.1
    program = compiled(model, x, tmp_path)
    assert len(program.dropout_rates) == 4
    rates = dict.fromkeys(program.dropout_rates, 0.0)
    names = list(rates)
    program.run(["x"], [x], hyper=rates | {names[0]: 0.5, names[2]: 0.25})
    kept = [program.read(output.name) for output in program.outputs[1:]]
    assert 0.4 < (kept[0] == 0).float().mean() < 0.6
    assert not torch.equal(kept[0] == 0, kept[1] == 0)
    gradient = program.gradient(bt.symbol_name(model, "scale"))
    expected = torch.stack([2 * part.sum(0) for part in kept])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)


def test_recomputation_may_not_draw_anew(tmp_path: Path) -> None:
    model = Recomputed(use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(BatucadaError, match="backward pass"):
        compiled(model, X, tmp_path)


def test_threads_draw_the_same_bits(tmp_path: Path) -> None:
    """Of every random operator, and of the gradient behind it."""
    drawn: list[list[torch.Tensor]] = []
    for threads in (1, 2, 3):
        model, x = Noises(), torch.linspace(0.1, 0.9, COUNT)
        program = compiled(model, x, tmp_path, threads=threads)
        found = program.run(["x"], [x])
        drawn.append([result.tensor().clone() for result in found])
        drawn[-1].append(program.gradient(bt.symbol_name(model, "scale")))
    for others in drawn[1:]:
        assert all(map(torch.equal, others, drawn[0]))


class Noises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(COUNT))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled = x * self.scale
        return (
            functional.dropout(scaled, 0.4),
            functional.alpha_dropout(scaled, 0.4, True),
            functional.rrelu(scaled - 0.5, training=True),
            torch.bernoulli(scaled.detach()),
            torch.randn(COUNT),
            torch.rand(COUNT, dtype=torch.float64),
            torch.randint(10**12, (COUNT,)),
            torch.randperm(1000),
        )
