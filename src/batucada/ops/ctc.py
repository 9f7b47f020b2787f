"""Connectionist temporal classification (Graves et al. 2006).

A target l1 .. lL is spelled as blank, l1, blank, l2, ..., lL, blank, and a path goes through these
2 L + 1 positions in as many steps as there are frames: it stays, goes on by one, or skips a blank
between two different labels.  Chances are held as logarithms.  What leads from a position to the
end is found like what leads to it from the start, with frames and positions in reverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batucada.ir.graph import Node
from batucada.ir.types import Type
from batucada.ops.base import Op, TypeRuleError, define, make, translates
from batucada.ops.create import full, scalar
from batucada.ops.elementwise import cast
from batucada.ops.index import checked
from batucada.ops.reduce import reduce
from batucada.ops.scan import scan
from batucada.ops.scatter import put
from batucada.ops.view import aten_slice, permute, reshape

_BORDER = 2  # positions before the first one, which no path reaches
_STEP_FLOPS = 50  # three exponentials and a logarithm

_INFINITY = float("inf")


def _infer(emission: Type, skips: Type) -> Type:
    rank = len(emission.shape)
    if rank != 3 or emission.dtype not in ("f32", "f64") or skips.dtype != "bool":
        raise TypeRuleError(f"ctc of {emission} with skips {skips}")
    batch, frames, positions = emission.shape
    if skips.shape != (batch, positions):
        raise TypeRuleError(f"ctc of {emission} with skips {skips}")
    return Type(emission.dtype, (batch, frames + 1, positions + _BORDER))


def _ref(emission: np.ndarray, skips: np.ndarray) -> np.ndarray:
    batch, frames, positions = emission.shape
    out = np.full((batch, frames + 1, positions + _BORDER), -np.inf, emission.dtype)
    out[:, 0, _BORDER] = 0
    for t in range(frames):
        before = out[:, t]
        skipped = np.where(skips, before[:, :-2], -np.inf)
        reached = np.logaddexp(np.logaddexp(before[:, 2:], before[:, 1:-1]), skipped)
        out[:, t + 1, _BORDER:] = reached + emission[:, t]
    return out


define(
    Op("ctc", "index", _infer, _ref, cost=lambda out, *_: out.size * _STEP_FLOPS)
)  # fmt: skip
"""ctc(emission[N, T, P], skips[N, P])[n, t, p + 2]: the logarithm of the sum over all paths that
are at position p after t frames of the product of exp(emission) on the way.  Before the first frame
all are at position 0; `skips` says which positions are also reached from two before.  Places 0 and
1 stand for no position, and are -inf."""


@dataclass(frozen=True)
class _Lattice:
    """Frames [N, T, C] against targets [N, S], or [sum of their lengths] one after the other.

    Targets of more than `longest` labels have no path: the caller gives a bound, or the frames are
    fewer.
    """

    frames: Node
    targets: Node
    frame_counts: Node  # i64 [N, 1]
    label_counts: Node  # i64 [N, 1]
    blank: int
    longest: int

    @property
    def positions(self) -> int:
        return 2 * self.longest + 1

    def last(self) -> Node:
        """i64 [N, 1]: the last position."""
        return make("mul", self.label_counts, scalar(2, "i64"))

    def ramp(self) -> Node:
        return reshape(make("iota", size=self.positions), [1, self.positions])

    def times(self) -> Node:
        return reshape(make("iota", size=self.frames.type.shape[1]), [1, -1])

    def labels(self, position: Node) -> Node:
        """i64 [N, P]: the label at each position i64 [N or 1, P]."""
        shape = (self.frames.type.shape[0], self.positions)
        if not self.targets.type.size:
            return full(shape, self.blank, "i64")
        two = scalar(2, "i64")
        spelled = make("eq", make("remainder", position, two), scalar(1, "i64"))
        inside = make("and", make("gt", position, scalar(0, "i64")),
                      make("lt", position, self.last()))  # fmt: skip
        spelled = make("and", spelled, inside)
        number = make("where", spelled, make("floor_div", position, two), scalar(0, "i64"))
        found = make("where", spelled, self._target(number), scalar(self.blank, "i64"))
        return checked(found, self.frames.type.shape[2])

    def _target(self, number: Node) -> Node:
        if len(self.targets.type.shape) == 2:
            return make("take", self.targets, number, dims=(1,))
        ends = scan(self.label_counts, 0, "add")
        first = make("sub", ends, self.label_counts)
        has_labels = make("gt", self.label_counts, scalar(0, "i64"))
        place = make("where", has_labels, make("add", number, first), scalar(0, "i64"))
        flat = reshape(checked(place, self.targets.type.size), [-1])
        return reshape(make("take", self.targets, flat, dims=(0,)), number.type.shape)

    def paths(self, labels: Node, emission: Node) -> Node:
        batch, extent = labels.type.shape
        none = full((batch, min(extent, 2)), False, "bool")
        if extent <= 2:
            return make("ctc", emission, none)
        here, before = aten_slice(labels, 1, 2, extent), aten_slice(labels, 1, 0, extent - 2)
        return make("ctc", emission, make("cat", none, make("ne", here, before), dim=1))

    def emission(self, labels: Node) -> Node:
        return make("take", self.frames, _middle(labels), dims=(2,))

    def backwards(self) -> Node:
        """[N, T, P]: as `paths`, from the end: of the paths that are at position p in frame t."""
        labels = self.labels(make("sub", self.last(), self.ramp()))
        left = make("sub", self.frame_counts, self.times())  # frames from this one on, [N, T]
        rows = _column(make("sub", left, scalar(1, "i64")))
        emission = make("take", self.frames, rows, _middle(labels), dims=(1, 2))
        paths = self.paths(labels, emission)
        places = make("add", make("sub", self.last(), self.ramp()), scalar(_BORDER, "i64"))
        return make("take", paths, _column(left), _middle(places), dims=(1, 2))


def _middle(x: Node) -> Node:
    """[N, P] -> [N, 1, P]"""
    return reshape(x, [x.type.shape[0], 1, x.type.shape[1]])


def _column(x: Node) -> Node:
    return reshape(x, [*x.type.shape, 1])


def _lattice(
    log_probs: Node, targets: Node, frames: Node, labels: Node, blank: int, longest: int
) -> _Lattice:
    if log_probs.type.dtype not in ("f32", "f64"):
        raise TypeRuleError(f"CTC takes log-probabilities of f32 or f64, not {log_probs.type}")
    count, batch, _ = log_probs.type.shape
    most = targets.type.size if len(targets.type.shape) == 1 else targets.type.shape[1]
    return _Lattice(
        permute(log_probs, (1, 0, 2)),
        cast(targets, "i64"),
        reshape(checked(frames, count + 1), [batch, 1]),
        reshape(checked(labels, most + 1), [batch, 1]),
        blank,
        min(longest, count),
    )


@translates("batucada.ctc.default")
def _ctc(
    log_probs: Node, targets: Node, frames: Node, labels: Node, blank: int, longest: int
) -> tuple[Node, Node]:
    """The negative logarithm of each target's chance [N], and the forward paths."""
    lattice = _lattice(log_probs, targets, frames, labels, blank, longest)
    spelled, dtype = lattice.labels(lattice.ramp()), log_probs.type.dtype
    paths = lattice.paths(spelled, lattice.emission(spelled))
    ends = make("add", lattice.last(), make("sub", scalar(_BORDER, "i64"), make("iota", size=2)))
    found = make("take", paths, _column(lattice.frame_counts), _middle(ends), dims=(1, 2))
    high = reduce("amax", found, 2)
    high = make("where", make("eq", high, scalar(-_INFINITY, dtype)), scalar(0, dtype), high)
    total = reduce("sum", make("exp", make("sub", found, high)), 2)
    chance = reshape(make("add", make("log", total), high), lattice.label_counts.type.shape)
    too_long = make("gt", lattice.label_counts, scalar(lattice.longest, "i64"))
    loss = make("where", too_long, scalar(_INFINITY, dtype), make("neg", chance))
    return reshape(loss, [log_probs.type.shape[1]]), paths


@translates("batucada.ctc_backward.default")
def _ctc_backward(
    grad: Node, log_probs: Node, targets: Node, frames: Node, labels: Node, loss: Node,
    paths: Node, blank: int, longest: int, zero_infinity: bool,
) -> Node:  # fmt: skip
    """exp(x) less the share of the paths that spell the label in that frame, as PyTorch has it: the
    gradient of a log-softmax's input, that of log-probabilities but for what sums to nothing.
    """
    lattice = _lattice(log_probs, targets, frames, labels, blank, longest)
    dtype, zero = log_probs.type.dtype, scalar(0, log_probs.type.dtype)
    spelled = lattice.labels(lattice.ramp())
    loss = reshape(loss, [loss.type.size, 1, 1])
    forward = aten_slice(aten_slice(paths, 1, 1, 2**62), 2, _BORDER, 2**62)
    share = make("add", forward, lattice.backwards())
    share = make("exp", make("add", make("sub", share, lattice.emission(spelled)), loss))
    in_target = _middle(make("le", lattice.ramp(), lattice.last()))
    share = make("where", in_target, share, zero)
    nothing = full(lattice.frames.type.shape, 0, dtype)
    total = put(nothing, share, [_middle(spelled)], (2,), "add")
    slope = make("sub", make("exp", lattice.frames), total)
    impossible = make("eq", loss, scalar(_INFINITY, dtype))
    slope = make("where", impossible, scalar(float("nan"), dtype), slope)
    slope = make("mul", slope, reshape(grad, loss.type.shape))
    if zero_infinity:
        slope = make("where", impossible, zero, slope)
    in_input = _column(make("lt", lattice.times(), lattice.frame_counts))
    return permute(make("where", in_input, slope, zero), (1, 0, 2))
