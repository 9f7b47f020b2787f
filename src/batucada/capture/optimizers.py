"""Appends the optimizers to a joint graph: each parameter's update, and what the optimizer
remembers.

Learning rates, momenta and weight decays are run-time scalars (`hyper` inputs); step counts are
state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from batucada.capture.naming import symbol_name
from batucada.errors import CaptureError
from batucada.ir.graph import Graph, Node, Output, graph_of, input_node
from batucada.ir.types import Type
from batucada.ops import make, origin
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce

Scalar = float | int | bool | None


@dataclass(frozen=True, slots=True)
class OptimizerGroup:
    """Parameters under one set of hyperparameters; `hyper` maps lr, momentum, ... to their
    symbols.
    """

    parameters: tuple[str, ...]
    options: dict[str, Scalar]
    hyper: dict[str, str]
    defaults: dict[str, float]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimizer as the compiler sees it: its kind, its symbols' prefix (`sgd0`) and its
    groups.
    """

    kind: str
    name: str
    region: str  # argin_region_name: a prefix under which its hyperparameters can be set alone
    max_grad_norm: float | None
    groups: tuple[OptimizerGroup, ...]
    state: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # parameter -> torch's key -> symbol

    @property
    def step_symbol(self) -> str:
        return f"{self.name}__step"


_KINDS: dict[str, tuple[type[torch.optim.Optimizer], tuple[str, ...], tuple[str, ...]]] = {
    # kind: (class, run-time scalars, options that are compiled in)
    "sgd": (
        torch.optim.SGD,
        ("lr", "momentum", "weight_decay"),
        ("dampening", "nesterov", "maximize"),
    ),
    "adamw": (torch.optim.AdamW, ("lr", "weight_decay"), ("betas", "eps", "amsgrad", "maximize")),
    "adam": (torch.optim.Adam, ("lr", "weight_decay"), ("betas", "eps", "amsgrad", "maximize")),
}


def describe_optimizers(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[OptimizerSpec, ...]:
    """CaptureError for an optimizer that has no compiled form, or a parameter that two of them
    hold.
    """
    symbols = {id(p): symbol_name(model, path) for path, p in model.named_parameters()}
    counts: dict[str, int] = {}
    specs = []
    for optimizer in optimizers:
        kind = _kind(optimizer)
        number = counts.setdefault(kind, 0)
        counts[kind] += 1
        specs.append(_describe(optimizer, kind, f"{kind}{number}", symbols))
    held = [p for spec in specs for group in spec.groups for p in group.parameters]
    twice = sorted({p for p in held if held.count(p) > 1})
    if twice:
        raise CaptureError(f"the parameter {twice[0]} belongs to two optimizers")
    return tuple(specs)


def _kind(optimizer: torch.optim.Optimizer) -> str:
    for kind in ("sgd", "adamw", "adam"):  # AdamW derives from Adam
        if isinstance(optimizer, _KINDS[kind][0]):
            decoupled = optimizer.param_groups[0].get("decoupled_weight_decay", False)
            return "adamw" if kind == "adam" and decoupled else kind
    known = ", ".join(cls.__name__ for cls, _, _ in _KINDS.values())
    raise CaptureError(
        f"the optimizer {type(optimizer).__name__} cannot be compiled; use one of {known}"
    )


def _describe(
    optimizer: torch.optim.Optimizer, kind: str, name: str, symbols: dict[int, str]
) -> OptimizerSpec:
    _, scalars, options = _KINDS[kind]
    groups = []
    for number, group in enumerate(optimizer.param_groups):
        foreign = [p for p in group["params"] if id(p) not in symbols]
        if foreign:
            raise CaptureError(
                f"{type(optimizer).__name__} holds a parameter of shape "
                f"{tuple(foreign[0].shape)} that the model has not"
            )
        prefix = name if number == 0 else f"{name}__group{number}"
        groups.append(
            OptimizerGroup(
                parameters=tuple(symbols[id(p)] for p in group["params"]),
                options=_options(group, options),
                hyper={key: f"{prefix}__{key}" for key in scalars},
                defaults={key: float(group[key]) for key in scalars},
            )
        )
    norm = getattr(optimizer, "max_grad_norm", None)
    region = getattr(optimizer, "argin_region_name", "")
    return OptimizerSpec(kind, name, region, None if norm is None else float(norm), tuple(groups))


def _options(group: dict[str, Any], names: tuple[str, ...]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name in names:
        if name == "betas":
            found["beta1"], found["beta2"] = (float(b) for b in group["betas"])
        else:
            found[name] = group[name]
    return found


def append_optimizers(graph: Graph, specs: Sequence[OptimizerSpec]) -> Graph:
    """The graph with an update output for every parameter that has a gradient and an optimizer."""
    writer = _Writer(graph)
    writer.clip([spec for spec in specs if spec.max_grad_norm is not None])
    for spec in specs:
        for group in spec.groups:
            with origin(spec.name, "OPT"):
                writer.group(spec, group)
    return graph_of(graph.name, writer.inputs, [*graph.outputs, *writer.updates])


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.inputs = list(graph.inputs)
        self.updates: list[Output] = []
        self.gradients = {out.name: out.node for out in graph.of_role("gradient")}
        self.parameters = {node.name: node for node in graph.by_role("parameter")}
        self._known = {node.name: node for node in graph.inputs}

    def _input(self, name: str, type: Type, role: Any) -> Node:
        if name not in self._known:
            self._known[name] = input_node(name, type, role)
            self.inputs.append(self._known[name])
        return self._known[name]

    def _update(self, name: str, node: Node) -> None:
        self.updates.append(Output(name, "update", node))

    def clip(self, specs: Sequence[OptimizerSpec]) -> None:
        """torch.nn.utils.clip_grad_norm_ over all parameters of the optimizers that ask for it."""
        held = [p for s in specs for g in s.groups for p in g.parameters if p in self.gradients]
        if not held:
            return
        limit = min(s.max_grad_norm for s in specs if s.max_grad_norm is not None)
        with origin("max_grad_norm", "GRADNORM"):
            squares = [_sum_of_squares(self.gradients[p]) for p in held]
            total = squares[0]
            for square in squares[1:]:
                total = make("add", total, square)
            norm = make("add", make("sqrt", total), scalar(1e-6, "f32"))
            factor = make("minimum", make("div", scalar(limit, "f32"), norm), scalar(1, "f32"))
        with origin("max_grad_norm", "OPT"):
            for parameter in held:
                gradient = self.gradients[parameter]
                clipped = make("mul", gradient, cast(factor, gradient.type.dtype))
                self.gradients[parameter] = clipped

    def group(self, spec: OptimizerSpec, group: OptimizerGroup) -> None:
        hyper = {key: self._input(name, Type("f32"), "hyper") for key, name in group.hyper.items()}
        for parameter in group.parameters:
            if parameter not in self.gradients:
                continue
            gradient = self.gradients[parameter]
            if group.options["maximize"]:
                gradient = make("neg", gradient)
            rule = self._sgd if spec.kind == "sgd" else self._adam
            rule(spec, group, self.parameters[parameter], gradient, hyper)

    def _state(self, spec: OptimizerSpec, parameter: Node, key: str, short: str) -> Node:
        name = f"{parameter.name}__{spec.name}__{short}"
        spec.state.setdefault(parameter.name, {})[key] = name
        return self._input(name, parameter.type, "state")

    def _step(self, spec: OptimizerSpec) -> Node:
        """The number of this step, from 1; in f64, in which PyTorch computes the bias
        corrections.
        """
        before = self._input(spec.step_symbol, Type("f64"), "state")
        done = next((u.node for u in self.updates if u.name == spec.step_symbol), None)
        if done is None:
            done = make("add", before, scalar(1, "f64"))
            self._update(spec.step_symbol, done)
        return done

    def _sgd(
        self, spec: OptimizerSpec, group: OptimizerGroup, p: Node, g: Node, hyper: dict[str, Node]
    ) -> None:
        """g += weight_decay * p;  b = momentum * b + (1 - dampening) * g;  p -= lr * b"""
        g = make("add", g, make("mul", hyper["weight_decay"], p))
        if group.defaults["momentum"] != 0:
            buffer = self._state(spec, p, "momentum_buffer", "momentum")
            fresh = g
            if group.options["dampening"]:
                first = make("le", self._step(spec), scalar(1, "f64"))
                keep = scalar(1 - float(group.options["dampening"]), "f32")
                fresh = make("mul", make("where", first, scalar(1, "f32"), keep), g)
            moved = make("add", make("mul", hyper["momentum"], buffer), fresh)
            self._update(buffer.name, moved)
            g = (
                make("add", g, make("mul", hyper["momentum"], moved))
                if group.options["nesterov"]
                else moved
            )
        self._update(p.name, make("sub", p, make("mul", hyper["lr"], g)))

    def _adam(
        self, spec: OptimizerSpec, group: OptimizerGroup, p: Node, g: Node, hyper: dict[str, Node]
    ) -> None:
        """Adam (decay added to the gradient) and AdamW (decay taken from the parameter), as
        torch.optim.
        """
        beta1, beta2 = float(group.options["beta1"] or 0), float(group.options["beta2"] or 0)
        one = scalar(1, "f32")
        if spec.kind == "adamw":
            p_decayed = make(
                "mul", p, make("sub", one, make("mul", hyper["lr"], hyper["weight_decay"]))
            )
        else:
            g = make("add", g, make("mul", hyper["weight_decay"], p))
            p_decayed = p
        average = self._state(spec, p, "exp_avg", "exp_avg")
        square = self._state(spec, p, "exp_avg_sq", "exp_avg_sq")
        m = make("add", average, make("mul", scalar(1 - beta1, "f32"), make("sub", g, average)))
        gg = make("mul", g, g)
        v = make(
            "add",
            make("mul", square, scalar(beta2, "f32")),
            make("mul", scalar(1 - beta2, "f32"), gg),
        )
        self._update(average.name, m)
        self._update(square.name, v)
        if group.options["amsgrad"]:
            largest = self._state(spec, p, "max_exp_avg_sq", "max_exp_avg_sq")
            v = make("maximum", largest, v)
            self._update(largest.name, v)
        rate, root = self._bias_corrections(spec, hyper["lr"], beta1, beta2)
        denominator = make(
            "add",
            make("div", make("sqrt", v), root),
            scalar(float(group.options["eps"] or 0), "f32"),
        )
        self._update(p.name, make("sub", p_decayed, make("mul", rate, make("div", m, denominator))))

    def _bias_corrections(
        self, spec: OptimizerSpec, lr: Node, beta1: float, beta2: float
    ) -> tuple[Node, Node]:
        """lr / (1 - beta1^t) and sqrt(1 - beta2^t), each as f32"""
        step, one = self._step(spec), scalar(1, "f64")
        first = make("sub", one, make("pow", scalar(beta1, "f64"), step))
        second = make("sub", one, make("pow", scalar(beta2, "f64"), step))
        return cast(make("div", cast(lr, "f64"), first), "f32"), cast(make("sqrt", second), "f32")


def _sum_of_squares(x: Node) -> Node:
    x = cast(x, "f32")
    return reduce("sum", make("mul", x, x), None, keepdim=False)
