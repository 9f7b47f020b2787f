"""Appends the optimizers to a joint graph: each parameter's update, and what the optimizer
remembers.

Learning rates, momenta and weight decays are run-time scalars (`hyper` inputs); step counts are
state.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from batucada.capture.naming import symbol_name
from batucada.capture.update import Scalars, Value
from batucada.capture.update_rules import NO_RULE, RULES
from batucada.errors import CaptureError
from batucada.ir.graph import Graph, Node, Output, graph_of, input_node
from batucada.ir.types import DType, Shape, Type
from batucada.ops import make, origin
from batucada.ops.create import scalar
from batucada.ops.elementwise import cast
from batucada.ops.reduce import reduce

Scalar = float | int | bool | str | None

_SHORT = {"momentum_buffer": "momentum"}  # where the symbol is not called as torch's key


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
    name = type(optimizer).__name__
    for kind, rule in RULES.items():
        if not isinstance(optimizer, rule.optimizer):
            continue
        if inspect.unwrap(type(optimizer).step) is not inspect.unwrap(rule.optimizer.step):
            raise CaptureError(
                f"the optimizer {name} has a step() of its own, which is not compiled;"
                f" only that of torch.optim.{rule.optimizer.__name__} is"
            )
        # torch's AdamW is an Adam with this option
        decoupled = optimizer.param_groups[0].get("decoupled_weight_decay", False)
        return "adamw" if kind == "adam" and decoupled else kind
    for refused, reason in NO_RULE.items():
        if isinstance(optimizer, refused):
            raise CaptureError(f"the optimizer {name} cannot be compiled: {reason}")
    known = ", ".join(rule.optimizer.__name__ for rule in RULES.values())
    raise CaptureError(f"the optimizer {name} cannot be compiled; use one of {known}")


def _describe(
    optimizer: torch.optim.Optimizer, kind: str, name: str, symbols: dict[int, str]
) -> OptimizerSpec:
    rule = RULES[kind]
    groups = []
    for number, group in enumerate(optimizer.param_groups):
        foreign = [p for p in group["params"] if id(p) not in symbols]
        if foreign:
            raise CaptureError(
                f"{type(optimizer).__name__} holds a parameter of shape "
                f"{tuple(foreign[0].shape)} that the model has not"
            )
        if kind in ("adafactor", "muon") and any(p.is_complex() for p in group["params"]):
            raise CaptureError(f"{type(optimizer).__name__} takes no complex parameters")
        prefix = name if number == 0 else f"{name}__group{number}"
        absent = [key for key in rule.optional if group[key] == 0]
        scalars = [key for key in rule.scalars if key not in absent]
        groups.append(
            OptimizerGroup(
                parameters=tuple(symbols[id(p)] for p in group["params"]),
                options=_options(group, (*rule.options, *absent)),
                hyper={key: f"{prefix}__{key}" for key in scalars},
                defaults={key: float(group[key]) for key in scalars},
            )
        )
    norm = getattr(optimizer, "max_grad_norm", None)
    region = getattr(optimizer, "argin_region_name", "")
    return OptimizerSpec(kind, name, region, None if norm is None else float(norm), tuple(groups))


def _options(group: dict[str, Any], names: Sequence[str]) -> dict[str, Scalar]:
    """Each option by name; those of a tuple such as `betas` as beta1, beta2, ..."""
    found: dict[str, Scalar] = {}
    for name in names:
        value = group[name]
        if isinstance(value, tuple | list):
            one = name if name == "eps" else name.removesuffix("s")
            found |= {f"{one}{i}": _option(v) for i, v in enumerate(value, 1)}
        else:
            found[name] = _option(value)
    return found


def _option(value: Any) -> Scalar:
    return value if value is None or isinstance(value, bool | str) else float(value)


def append_optimizers(
    graph: Graph, specs: Sequence[OptimizerSpec], data_parallel: bool = False
) -> Graph:
    """The graph with an update output for every parameter that has a gradient and an optimizer.

    What the model changes itself is updated from there.  With `data_parallel` the gradients of
    parameters are reduced over replicas before they are read.
    """
    writer = _Writer(graph)
    if data_parallel and writer.changed:
        raise CaptureError(
            f"the model changes its parameter {next(iter(writer.changed))} in place, each replica"
            " in its own way; compile it without data parallel, or make it a buffer"
        )
    outputs = writer.reduced(graph.outputs) if data_parallel and specs else graph.outputs
    writer.clip([spec for spec in specs if spec.max_grad_norm is not None])
    for spec in specs:
        writer.scalars = Scalars()
        for number in range(len(spec.groups)):
            with origin(spec.name, "OPT"):
                writer.group(spec, number)
    kept = [out for out in outputs if out.role != "update" or out.name not in writer.updates]
    return graph_of(graph.name, writer.inputs, [*kept, *writer.updates.values()])


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.inputs = list(graph.inputs)
        self.updates: dict[str, Output] = {}
        self.gradients = {out.name: out.node for out in graph.of_role("gradient")}
        self.parameters = {node.name: node for node in graph.by_role("parameter")}
        updates = graph.of_role("update")
        self.changed = {out.name: out.node for out in updates if out.name in self.parameters}
        self.parameters |= self.changed
        self.known = {node.name: node for node in graph.inputs}
        self.scalars = Scalars()

    def input(self, name: str, type: Type, role: Any) -> Node:
        if name not in self.known:
            self.known[name] = input_node(name, type, role)
            self.inputs.append(self.known[name])
        return self.known[name]

    def reduced(self, outputs: Sequence[Output]) -> list[Output]:
        with origin("data_parallel", "REDUCE"):
            for name, node in self.gradients.items():
                if name in self.parameters:
                    self.gradients[name] = make("all_reduce", node, of=name)
        return [
            replace(out, node=self.gradients[out.name]) if out.role == "gradient" else out
            for out in outputs
        ]

    def update(self, name: str, node: Node) -> None:
        """Once a symbol: a state that parameters share is the same for each."""
        self.updates.setdefault(name, Output(name, "update", node))

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

    def group(self, spec: OptimizerSpec, number: int) -> None:
        for name in spec.groups[number].hyper.values():
            self.input(name, Type("f32"), "hyper")  # also where the rule does not read it
        for parameter in spec.groups[number].parameters:
            if parameter in self.gradients:
                RULES[spec.kind].write(_ParameterUpdate(self, spec, number, parameter))

    def step(self, spec: OptimizerSpec) -> Node:
        before = self.input(spec.step_symbol, Type("f64"), "state")
        if spec.step_symbol not in self.updates:
            self.update(spec.step_symbol, make("add", before, scalar(1, "f64")))
        return self.updates[spec.step_symbol].node


class _ParameterUpdate:
    """What a rule sees of one parameter; see `update.Update`."""

    def __init__(self, writer: _Writer, spec: OptimizerSpec, number: int, parameter: str) -> None:
        group = spec.groups[number]
        self.options: Mapping[str, Any] = group.options
        self.defaults: Mapping[str, float] = group.defaults
        self._hyper = group.hyper
        self._writer, self._spec, self._number = writer, spec, number
        self._name, self._node = parameter, writer.parameters[parameter]
        gradient = writer.gradients[parameter]
        if self.options.get("maximize"):
            gradient = make("neg", gradient)
        self.stored: DType = self._node.type.dtype
        self._dtype: DType = "f64" if self.stored == "f64" else "f32"
        self.parameter, self.gradient = self._wide(self._node), self._wide(gradient)

    def _wide(self, node: Node) -> Value:
        return self._value(node).to(self._dtype)

    def _value(self, node: Node) -> Value:
        return Value(node, self._writer.scalars)

    def hyper(self, key: str) -> Value:
        return self._wide(self._writer.known[self._hyper[key]])

    def state(self, key: str, shape: Shape | None = None) -> Value:
        short = _SHORT.get(key, key)
        name = f"{self._name}__{self._spec.name}__{short}"
        kept = self._node.type if shape is None else Type(self.stored, shape)
        return self._wide(self._state(key, name, kept))

    def shared_state(self, key: str) -> Value:
        group = f"__group{self._number}" if self._number else ""
        return self._value(self._state(key, f"{self._spec.name}{group}__{key}", Type("f32")))

    def _state(self, key: str, name: str, type: Type) -> Node:
        self._spec.state.setdefault(self._name, {})[key] = name
        return self._writer.input(name, type, "state")

    def keep(self, key: str, value: Value) -> None:
        name = self._spec.state[self._name][key]
        stored = self._writer.known[name].type.dtype
        self._writer.update(name, cast(value.node, stored))

    def step(self) -> Value:
        return self._value(self._writer.step(self._spec))

    def set_parameter(self, value: Value) -> None:
        self._writer.update(self._name, cast(value.node, self.stored))


def _sum_of_squares(x: Node) -> Node:
    x = cast(x, "f32")
    return reduce("sum", make("mul", x, x), None, keepdim=False)
