"""The loop language: what kernels are written in, between a stage of the graph and LLVM IR.

    kernel  = def name(buffer: 'f32[784]', out: 'f32[32] inout', ...): block
    block   = stmt+
    stmt    = for var in range(start, stop, step): block       # a serial loop, all bounds are
    constants
            | for var in range(start, stop, step, index): block  # ends before the index, too
            | for var in parallel(start, stop, step): block    # outermost only: may be split over
            threads
            | register = expr                                  # declare or assign; registers are
            mutable
            | buffer[index, lanes] = expr                      # store `lanes` consecutive elements
            | check(expr, code)                                # leave the kernel with `code` unless
            true
            | prefetch(buffer, index)
    expr    = literal of a dtype  f32(0.5)  i64(3)
            | register
            | buffer[index, lanes]                             # load `lanes` consecutive elements
            | index(affine)                                    # the value of an index, an i64
            | op(expr, ...)                                    # elementwise, see the tables; one
            scalar
                                                               # argument is spread over the others'
                                                               lanes
            | cast(expr, dtype) | splat(expr, lanes) | lane(lanes)  # lane: 0, 1, 2, ... as i64
            | reduce_add(expr) | reduce_max(expr) | reduce_min(expr) | reduce_mul(expr)
            | lane_of(expr, constant) | pack(expr, ...)        # a vector of as many scalars
            | part(expr, constant, lanes)                      # `lanes` lanes from a constant on
    index   = affine sum of loop variables and i64 registers with constant factors

`and`, `or` and `not` are written `and_`, `or_` and `not_`; lanes are a power of two; a prefetch may
name any index.  Every kernel prints as a Python program and the print parses back
(`ir.loops_text`); bounds of every access are proved from the loops' ranges where no register is in
the index (`ir.loops_verify`); it can be interpreted slowly (`ir.loops_eval`).  A value has a dtype
and a number of lanes; lanes == 1 is a scalar.
"""

from __future__ import annotations

from dataclasses import dataclass

from batucada.ir.types import DType


@dataclass(frozen=True, slots=True)
class Index:
    """offset + sum(factor * variable): variables are loop variables or i64 registers; unit:
    elements.
    """

    offset: int = 0
    terms: tuple[tuple[str, int], ...] = ()  # sorted by variable, no zero factors

    @staticmethod
    def of(value: Index | int | str) -> Index:
        if isinstance(value, Index):
            return value
        return Index(value) if isinstance(value, int) else Index(0, ((value, 1),))

    def __add__(self, other: Index | int | str) -> Index:
        right = Index.of(other)
        if not right.terms or not self.terms:
            return Index(self.offset + right.offset, self.terms or right.terms)
        factors = dict(self.terms)
        for variable, factor in right.terms:
            factors[variable] = factors.get(variable, 0) + factor
        terms = tuple(sorted((v, f) for v, f in factors.items() if f))
        return Index(self.offset + right.offset, terms)

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index(self.offset * factor, tuple((v, f * factor) for v, f in self.terms))


@dataclass(frozen=True, slots=True)
class Literal:
    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True)
class Register:
    name: str
    dtype: DType
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    buffer: str
    index: Index
    dtype: DType
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class IndexValue:
    """The value of an index as an i64 scalar."""

    index: Index


@dataclass(frozen=True, slots=True)
class Apply:
    """An elementwise operation of the tables below, or one of the lane operations of the grammar.

    `dtype` and `lanes` are those of the result; `arg` is the constant of `lane_of` and `part`.
    """

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    lanes: int = 1
    arg: int = 0


Expr = Literal | Register | Load | IndexValue | Apply


def lanes_of(expr: Expr) -> int:
    return expr.lanes if isinstance(expr, Register | Load | Apply) else 1


def dtype_of(expr: Expr) -> DType:
    return "i64" if isinstance(expr, IndexValue) else expr.dtype


@dataclass(frozen=True, slots=True)
class For:
    """`limit`, known when the loop is entered, ends it before `stop`: a triangular loop, a rest."""

    variable: str
    start: int
    stop: int
    step: int
    body: tuple[Stmt, ...]
    parallel: bool = False
    limit: Index | None = None


@dataclass(frozen=True, slots=True)
class Set:
    register: Register
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    buffer: str
    index: Index
    value: Expr
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Check:
    condition: Expr
    code: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    buffer: str
    index: Index


Stmt = For | Set | Store | Check | Prefetch


@dataclass(frozen=True, slots=True)
class Param:
    """A buffer that a kernel is given: `size` elements of `dtype`; `writes` when it stores
    there.
    """

    name: str
    dtype: DType
    size: int
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """A function over buffers.  A `parallel` For may only be its first and only statement."""

    name: str
    params: tuple[Param, ...]
    body: tuple[Stmt, ...]


UNARY_OPS = frozenset(
    "neg abs sqrt rsqrt reciprocal exp expm1 log log1p log2 log10 exp2 sin cos tan asin acos atan"
    " sinh cosh tanh asinh acosh atanh erf erfc lgamma digamma floor ceil round trunc sign isnan"
    " isinf not".split()
)
"""One argument.  Result dtype is the argument's, but for isnan and isinf, which give bool; `not`
takes bool.
"""

BINARY_OPS = frozenset(
    "add sub mul div pow maximum minimum fmod remainder floor_div atan2 and or xor shl shr".split()
)
"""Two arguments of one dtype.  `div` on integers truncates; floor_div and remainder round to
minus infinity, as Python; maximum and minimum pass a NaN on; and, or, xor also take bool; shl and
shr take integers: a shift by a negative number or by all bits leaves 0, or the sign of a shr."""

COMPARE_OPS = frozenset("eq ne lt le gt ge".split())
"""Two arguments of one dtype, result bool.  `ne` is true for NaN, the others false."""

TERNARY_OPS = frozenset({"where", "fma", "philox"})
"""where(bool, x, y); fma(a, b, c) = a * b + c, rounded once; philox(low, high, key) of i32 is the
first word that Philox 2x32-10 gives for a counter of two words."""

PHILOX_ROUNDS, PHILOX_MULTIPLIER, PHILOX_WEYL = 10, 0xD256D193, 0x9E3779B9
"""Rounds and constants of Philox 2x32 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3,
SC'11)."""

REDUCE_OPS = frozenset({"reduce_add", "reduce_max", "reduce_min", "reduce_mul"})
