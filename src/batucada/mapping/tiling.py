"""How products are blocked for the registers and caches of the target."""

from __future__ import annotations

import math

from batucada.ir.access import memory_index
from batucada.ir.graph import Node
from batucada.ir.loops import Index
from batucada.mapping.program import Tile
from batucada.ops import OPS

LANES = 8
_SUMS = (
    12  # registers that hold sums: 16 less the vectors of the right operand and one spread value
)
_NARROW_SUMS = 14  # ... where there is one vector
_L1_BYTES = 24 * 1024  # what the blocks of both operands may take of a 32 KB first-level cache
_L2_BYTES = 256 * 1024  # what a panel of the right operand may take of a second-level cache
_PANELS_BYTES = 192 * 1024  # ... and what a block of panels of it may, copied
_FAR_BYTES = 512  # neighbours along K of the left operand that are so far apart are copied, too
_PACKED_K = 256  # steps of k in a block of panels, about
_FEW_ROWS = 8  # below this many rows a dot product is cheaper than packing the right operand


def _is_base(node: Node) -> bool:
    return node.op == "input" or OPS[node.op].kind not in ("view",)


def strides(node: Node) -> tuple[int, ...] | None:
    """Elements between neighbours along each dimension of an operand, if its memory were read in
    place.
    """
    variables = [f"d{i}" for i in range(len(node.type.shape))]
    found = memory_index(node, [Index.of(v) for v in variables], _is_base)
    if found is None:
        return None
    factors = dict(found[1].terms)
    return tuple(
        factors.get(v, 0) if e != 1 else 1 for v, e in zip(variables, node.type.shape, strict=True)
    )


def _dot_form(product: Node) -> bool:
    """Both operands are contiguous along K, the right one is not along N, and there are few
    rows.
    """
    a, b = (strides(arg) for arg in product.args)
    if a is None or b is None or b[-1] == 1 or product.op == "contract":
        return False
    return a[-1] == 1 and b[-2] == 1 and product.type.shape[-2] < _FEW_ROWS


def needs_packing(product: Node) -> bool:
    """The right operand must be copied as a whole so that N is contiguous."""
    if _is_packed(product):
        return False
    b = strides(product.args[1])
    return (b is None or b[-1] != 1) and not _dot_form(product)


def tile_of(product: Node) -> Tile:
    m, n = product.type.shape[-2:]
    k = product.args[0].type.shape[-1]
    if _is_packed(product):
        return _packed_tile(product)
    if product.op == "contract":
        return _image_tile(product)
    if _dot_form(product):
        return Tile("dot", min(8, n), 1, k, m)
    vectors = _vectors(n)
    rows = max(1, min(_most_rows(vectors), m))
    k_block = _k_block(product, m, n, k)
    block = m if k_block == k else min(m, 16 * rows)
    return Tile("outer", rows, vectors, k_block, block, -(-k // k_block))


def _image_tile(product: Node) -> Tile:
    """Rows are the last dimension before N; where they are short, several of the one before."""
    shape, right = product.type.shape, product.args[1].type.shape
    m, n = shape[-2:]
    vectors = _vectors(n)
    most = _most_rows(vectors)
    rows = -(-m // -(-m // most))
    outer = 1
    if len(shape) - product.integer("batch") > 2:
        outer = max(d for d in range(1, most // rows + 1) if shape[-3] % d == 0)
    first = right[product.integer("batch")]
    slice_bytes = 4 * LANES * vectors * math.prod(right[product.integer("batch") + 1 : -1])
    k_block = first if first * slice_bytes <= _L2_BYTES else max(1, _L2_BYTES // 2 // slice_bytes)
    return Tile("outer", rows, vectors, k_block, m, -(-first // k_block), outer)


def _is_packed(product: Node) -> bool:
    """Many rows meet a right operand that is too large to stay in the first-level cache, or that
    lies turned.
    """
    b = product.args[1]
    if product.type.dtype != "f32" or len(b.type.shape) > 2 + _depth(product) - 1:
        return False
    if product.op == "matmul" and len(product.type.shape) > 2:
        return False
    rows, depth = math.prod(product.type.shape[:-1]), math.prod(b.type.shape[:-1])
    n = b.type.size // depth
    return rows >= 24 and n >= 64 and depth >= 32 and strides(b) is not None


def _depth(product: Node) -> int:
    """Number of dimensions that are summed over."""
    return product.integer("k") if product.op == "contract" else 1


def _packed_tile(product: Node) -> Tile:
    """Panels of two vectors and six rows; as many columns at a time as the copies may take."""
    shape, right = product.type.shape, product.args[1].type.shape
    m, n = shape[-2:]
    first, rest = right[0], math.prod(right[1:-1])
    count = max(1, round(first * rest / _PACKED_K)) if rest < _PACKED_K else first
    k_block = -(-first // min(count, first))
    width = 2 * LANES
    panels = max(1, _PANELS_BYTES // (4 * k_block * rest * width))
    blocks = -(-n // (panels * width))
    blocks += blocks % 2 if n > blocks * width else 0  # two threads share them evenly
    n_block = -(-n // (blocks * width)) * width
    rows, outer = 6, 1
    if len(shape) > 2:
        rows = -(-m // -(-m // rows))
        outer = max(d for d in range(1, 6 // rows + 1) if shape[-3] % d == 0)
    left = strides(product.args[0])
    pack_left = len(shape) == 2 and left is not None and left[-1] * 4 >= _FAR_BYTES
    return Tile(
        "packed", min(rows, m), 2, k_block, 16 * rows, -(-first // k_block), outer, n_block,
        pack_left,
    )  # fmt: skip


def _most_rows(vectors: int) -> int:
    return _NARROW_SUMS if vectors == 1 else _SUMS // vectors


def _vectors(n: int) -> int:
    """Vectors of a tile's row: at most 4, and as even as N allows."""
    pieces = -(-n // LANES)
    tiles = -(-pieces // 4)
    return -(-pieces // tiles)


def _k_block(product: Node, m: int, n: int, k: int) -> int:
    """The largest even cut of K whose block of the right operand stays in the first-level cache."""
    width = min(n, 4 * LANES)
    left = strides(product.args[0])
    column_bytes = (
        64 if left is not None and left[-1] != 1 else 0
    )  # a cache line a row, where K is strided
    fits = max(32, _L1_BYTES // (4 * width + column_bytes))
    if m <= 2 or k <= fits * 3 // 2:
        return k
    blocks = -(-k // fits)
    return -(-k // blocks)
