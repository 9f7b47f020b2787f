"""The update of a parameter by each optimizer of torch.optim: one function a rule.

The formulas are those of torch.optim's `_single_tensor_*` functions, in their order.  Parameters
and states narrower than f32 are widened to it first and rounded when they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from batucada.capture.matrix_rules import adafactor, muon
from batucada.capture.update import Update, Value


def _decayed(u: Update, decoupled: bool = False) -> tuple[Value, Value]:
    """The parameter and the gradient, one of them with the weight decay in it."""
    decay = u.hyper("weight_decay")
    if decoupled:
        return u.parameter * (1 - u.hyper("lr") * decay), u.gradient
    return u.parameter, u.gradient + decay * u.parameter


def _rate(u: Update) -> Value:
    return u.hyper("lr").to("f64")


def _average(u: Update, key: str, value: Value, weight: float) -> Value:
    """A running average by torch.lerp."""
    moved = u.state(key).moved_to(value, weight)
    u.keep(key, moved)
    return moved


def _average_square(u: Update, key: str, value: Value, factor: float) -> Value:
    """A running average of squares, as addcmul rounds it."""
    moved = u.state(key) * factor + (1 - factor) * (value * value)
    u.keep(key, moved)
    return moved


def sgd(u: Update) -> None:
    """`b = momentum * b + (1 - dampening) * g;  p -= lr * b`"""
    p, g = _decayed(u)
    if u.defaults["momentum"]:
        fresh = g
        if u.options["dampening"]:
            later = g.constant(1 - u.options["dampening"])
            fresh = (u.step() <= 1).select(1.0, later) * g
        moved = u.hyper("momentum") * u.state("momentum_buffer") + fresh
        u.keep("momentum_buffer", moved)
        g = g + u.hyper("momentum") * moved if u.options["nesterov"] else moved
    u.set_parameter(p - u.hyper("lr") * g)


def adam(u: Update) -> None:
    _adam(u, *_decayed(u))


def adamw(u: Update) -> None:
    """Adam, with the weight decay taken from the parameter."""
    _adam(u, *_decayed(u, decoupled=True))


def _adam(u: Update, p: Value, g: Value) -> None:
    beta1, beta2 = u.options["beta1"], u.options["beta2"]
    m = _average(u, "exp_avg", g, 1 - beta1)
    v = _average_square(u, "exp_avg_sq", g, beta2)
    if u.options["amsgrad"]:
        v = u.state("max_exp_avg_sq").maximum(v)
        u.keep("max_exp_avg_sq", v)
    step = u.step()
    rate = (_rate(u) / (1 - beta1**step)).to(m.node.type.dtype)
    root = (1 - beta2**step).sqrt().to(m.node.type.dtype)
    u.set_parameter(p - rate * (m / (v.sqrt() / root + u.options["eps"])))


def nadam(u: Update) -> None:
    beta1, beta2, step = u.options["beta1"], u.options["beta2"], u.step()
    decay, dtype = u.options["momentum_decay"], u.parameter.node.type.dtype
    p, g = _decayed(u, u.options["decoupled_weight_decay"])
    mu = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
    before = (step <= 1).select(1.0, u.shared_state("mu_product").to("f64"))
    product = (before * mu).to("f32")  # as PyTorch stores it
    u.keep("mu_product", product)
    m = _average(u, "exp_avg", g, 1 - beta1)
    v = _average_square(u, "exp_avg_sq", g, beta2)
    root = (v / (1 - beta2**step).to(dtype)).sqrt() + u.options["eps"]
    product = product.to("f64")
    of_gradient = (_rate(u) * (1 - mu) / (1 - product)).to(dtype)
    of_average = (_rate(u) * mu_next / (1 - product * mu_next)).to(dtype)
    u.set_parameter(p - of_gradient * (g / root) - of_average * (m / root))


def radam(u: Update) -> None:
    beta1, beta2, step = u.options["beta1"], u.options["beta2"], u.step()
    dtype = u.parameter.node.type.dtype
    p, g = _decayed(u, u.options["decoupled_weight_decay"])
    m = _average(u, "exp_avg", g, 1 - beta1)
    v = _average_square(u, "exp_avg_sq", g, beta2)
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    rectified = length > 5
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    # sqrt only of what is positive: where PyTorch takes the other branch, so does this
    rect = (rectified.select(ratio, ratio.constant(1.0)).sqrt() * correction.sqrt()).to(dtype)
    moved = m / (1 - beta1**step).to(dtype) * u.hyper("lr")
    adapted = moved * (rect / (v.sqrt() + u.options["eps"]))
    u.set_parameter(p - rectified.select(adapted, moved))


def adamax(u: Update) -> None:
    beta1, beta2, step = u.options["beta1"], u.options["beta2"], u.step()
    p, g = _decayed(u)
    m = _average(u, "exp_avg", g, 1 - beta1)
    largest = (u.state("exp_inf") * beta2).maximum(g.apply("abs") + u.options["eps"])
    u.keep("exp_inf", largest)
    u.set_parameter(p - (_rate(u) / (1 - beta1**step)).to(p.node.type.dtype) * (m / largest))


def rmsprop(u: Update) -> None:
    alpha = u.options["alpha"]
    u.step()
    p, g = _decayed(u)
    square = _average_square(u, "square_avg", g, alpha)
    if u.options["centered"]:
        average = _average(u, "grad_avg", g, 1 - alpha)
        square = square - average * average
    moved = g / (square.sqrt() + u.options["eps"])
    if u.defaults.get("momentum"):
        moved = u.hyper("momentum") * u.state("momentum_buffer") + moved
        u.keep("momentum_buffer", moved)
    u.set_parameter(p - u.hyper("lr") * moved)


def adagrad(u: Update) -> None:
    p, g = _decayed(u)
    rate = _rate(u) / ((u.step() - 1) * u.options["lr_decay"] + 1)
    total = u.state("sum") + g * g
    u.keep("sum", total)
    u.set_parameter(p - rate.to(p.node.type.dtype) * (g / (total.sqrt() + u.options["eps"])))


def adadelta(u: Update) -> None:
    rho, eps = u.options["rho"], u.options["eps"]
    u.step()
    p, g = _decayed(u)
    square = _average_square(u, "square_avg", g, rho)
    delta = (u.state("acc_delta") + eps).sqrt() / (square + eps).sqrt() * g
    _average_square(u, "acc_delta", delta, rho)
    u.set_parameter(p - u.hyper("lr") * delta)


def rprop(u: Update) -> None:
    """The learning rate is the size of the first step alone: no later size is 0."""
    u.step()
    down, up = u.options["eta1"], u.options["eta2"]
    g, p = u.gradient, u.parameter
    turned = g * u.state("prev")
    size = u.state("step_size")
    size = (size > 0).select(size, u.hyper("lr"))
    size = (turned > 0).select(size * up, (turned < 0).select(size * down, size))
    size = size.maximum(u.options["step_size1"]).minimum(u.options["step_size2"])
    g = (turned < 0).select(0.0, g)
    u.keep("prev", g)
    u.keep("step_size", size)
    u.set_parameter(p - g.apply("sign") * size)


def asgd(u: Update) -> None:
    """`ax` is the parameter's average once `t0` steps are made; a step's eta is of the one
    before."""
    lambd, step, dtype = u.options["lambd"], u.step(), u.parameter.node.type.dtype
    p, g = _decayed(u)
    first = step <= 1
    eta = first.select(_rate(u), u.shared_state("eta").to("f64"))
    mu = first.select(1.0, u.shared_state("mu").to("f64"))
    p = p * (1 - lambd * eta).to(dtype) - eta.to(dtype) * g
    u.set_parameter(p)
    average = u.state("ax")
    u.keep("ax", (mu < 1).select(average + (p - average) * mu.to(dtype), p))
    later = _rate(u) / (1 + lambd * _rate(u) * step) ** u.options["alpha"]
    u.keep("eta", later.to("f32"))
    u.keep("mu", (1 / (step - u.options["t0"]).maximum(1.0)).to("f32"))


@dataclass(frozen=True, slots=True)
class Rule:
    """How an optimizer of torch.optim updates a parameter.

    `scalars` are run-time values; `options` are compiled in.  A scalar of `optional` that is 0 at
    compilation is compiled in, too, as 0, and its state is left out.
    """

    optimizer: type[torch.optim.Optimizer]
    write: Callable[[Update], None]
    scalars: tuple[str, ...]
    options: tuple[str, ...]
    optional: tuple[str, ...] = ()


_DECOUPLED = ("betas", "eps", "decoupled_weight_decay", "maximize")
_ADAM = ("betas", "eps", "amsgrad", "maximize")
_LR = ("lr", "weight_decay")

RULES: dict[str, Rule] = {
    "sgd": Rule(
        torch.optim.SGD, sgd, ("lr", "momentum", "weight_decay"),
        ("dampening", "nesterov", "maximize"),
    ),
    "adamw": Rule(torch.optim.AdamW, adamw, _LR, _ADAM),
    "adam": Rule(torch.optim.Adam, adam, _LR, _ADAM),
    "nadam": Rule(torch.optim.NAdam, nadam, _LR, (*_DECOUPLED, "momentum_decay")),
    "radam": Rule(torch.optim.RAdam, radam, _LR, _DECOUPLED),
    "adamax": Rule(torch.optim.Adamax, adamax, _LR, ("betas", "eps", "maximize")),
    "rmsprop": Rule(
        torch.optim.RMSprop, rmsprop, ("lr", "weight_decay", "momentum"),
        ("alpha", "eps", "centered", "maximize"), optional=("momentum",),
    ),
    "adagrad": Rule(torch.optim.Adagrad, adagrad, _LR, ("lr_decay", "eps", "maximize")),
    "adadelta": Rule(torch.optim.Adadelta, adadelta, _LR, ("rho", "eps", "maximize")),
    "rprop": Rule(torch.optim.Rprop, rprop, ("lr",), ("etas", "step_sizes", "maximize")),
    "asgd": Rule(torch.optim.ASGD, asgd, _LR, ("lambd", "alpha", "t0", "maximize")),
    "adafactor": Rule(
        torch.optim.Adafactor, adafactor, _LR, ("beta2_decay", "eps", "d", "maximize"),
    ),
    "muon": Rule(
        torch.optim.Muon, muon, ("lr", "weight_decay", "momentum"),
        ("nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"),
    ),
}  # fmt: skip
"""By the name under which a PEF knows the optimizer; a derived class before its base."""

NO_RULE: dict[type[torch.optim.Optimizer], str] = {
    torch.optim.LBFGS: "it evaluates the model several times a step, and a program once",
    torch.optim.SparseAdam: "it takes sparse gradients, and those of a program are dense",
}
"""Why an optimizer of torch.optim has none."""
