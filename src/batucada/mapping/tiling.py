"""How products are blocked for the registers and caches of the target."""

from __future__ import annotations

import math

from batucada.ir.access import below_views, memory_index
from batucada.ir.graph import Node
from batucada.ir.loops import Index
from batucada.mapping.program import Tile
from batucada.ops import OPS
from batucada.ops.border import border_of, sums_over_images

LANES = 8
_SUMS = (
    12  # registers that hold sums: 16 less the vectors of the right operand and one spread value
)
_L1_BYTES = 24 * 1024  # what the blocks of both operands may take of a 32 KB first-level cache
_L2_BYTES = 256 * 1024  # what a panel of the right operand may take of a second-level cache
_PANELS_BYTES = 192 * 1024  # ... and what a block of panels of it may, copied
_WIDE_PANELS_BYTES = 512 * 1024  # ... where the right operand is much larger than the left one
_FAR_BYTES = 512  # neighbours along K of the left operand that are so far apart are copied, too
_PACKED_K = 256  # steps of k in a block of panels, about
PANEL = 16  # columns of a panel that is stored
_SUMMED_K = 512  # ... where they are summed over small images
_STORED_K = 1024  # ... where they are stored: the second-level cache is near enough
_LONG = 512  # steps of K behind its first dimension from which on it is cut further behind
_STEPS = 128  # steps of K in a block then, about
_STREAMED_ROWS = 4  # up to so many rows a large right operand is read as it lies
_STREAMED_K = 8  # ... and so many of its rows at a time: few enough for the processor to follow
_PARTS = 4  # parts of K, at most, that threads may take of it
_IMAGES_BYTES = 768 * 1024  # what a block of small images and their sums may take of a larger one
_LOW = 12  # images of such a block, at least: tiles of six rows
_FEW_ROWS = 8  # below this many rows a dot product is cheaper than packing the right operand
_PACKED_ROWS = 24  # from so many rows on it is packed although it lies as it should


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


def _is_streamed(product: Node) -> bool:
    """Few rows meet a right operand that is far larger than the second-level cache's share."""
    b, shape = product.args[1], product.type.shape
    rows, lying = math.prod(shape[:-1]), strides(b)
    if len(b.type.shape) != 1 + _depth(product) or rows != math.prod(shape[-3:-1]):
        return False
    if not 0 < rows <= _STREAMED_ROWS or _dot_form(product):
        return False
    return lying is not None and lying[-1] == 1 and b.type.bytes > _L2_BYTES


def _streamed_tile(product: Node) -> Tile:
    m, over = product.type.shape[-2], _over(product)
    rows = math.prod(product.type.shape[:-1])
    parts = next(p for p in (_PARTS, 2, 1) if over[0] % (p * _STREAMED_K) == 0 or p == 1)
    if len(over) > 1:
        parts = over[0]
    return Tile(
        "streamed", m, min(4, _SUMS // rows), _STREAMED_K, m, parts, rows // m, cut=len(over) - 1
    )


def needs_packing(product: Node) -> bool:
    """The right operand must be copied as a whole so that N is contiguous."""
    b = strides(product.args[1])
    if _has_border(product):
        return b is None
    if _is_packed(product):
        return False
    return (b is None or b[-1] != 1) and not _dot_form(product)


def scattered_images(product: Node) -> Node | None:
    """What lies within the border of the left operand, if its channels lie apart: it must be copied
    so that they do not.
    """
    border = border_of(product.args[0])
    if border is None:
        return None
    images = border.args[0]
    lying = strides(images)
    return images if lying is None or lying[-1] != 1 else None


def tile_of(product: Node) -> Tile:
    m, n = product.type.shape[-2:]
    k = product.args[0].type.shape[-1]
    stored = stored_tile(product) if "panel" in dict(below_views(product.args[1]).attrs) else None
    if stored is not None:
        return stored
    if _has_border(product):
        return _border_tile(product, stored=False)
    if _is_streamed(product):
        return _streamed_tile(product)
    if _is_packed(product):
        return _packed_tile(product)
    if product.op == "contract":
        return _image_tile(product)
    if _dot_form(product):
        return Tile("dot", min(8, n), 1, k, m)
    vectors = _vectors(n)
    rows = max(1, min(_SUMS // vectors, m))
    k_block = _k_block(product, m, n, k)
    block = m if k_block == k else min(m, 16 * rows)
    return Tile("outer", rows, vectors, k_block, block, -(-k // k_block))


def _image_tile(product: Node) -> Tile:
    """Rows are the last dimension before N; where they are short, several of the one before."""
    shape, right = product.type.shape, product.args[1].type.shape
    m, n = shape[-2:]
    vectors = _vectors(n)
    most = _SUMS // vectors
    if _is_long(product):
        return _long_tile(product)
    rows = -(-m // -(-m // most))
    outer = 1
    if len(shape) - product.integer("batch") > 2:
        outer = max(d for d in range(1, most // rows + 1) if shape[-3] % d == 0)
    first = right[product.integer("batch")]
    slice_bytes = 4 * LANES * vectors * math.prod(right[product.integer("batch") + 1 : -1])
    k_block = first if first * slice_bytes <= _L2_BYTES else max(1, _L2_BYTES // 2 // slice_bytes)
    return Tile("outer", rows, vectors, k_block, m, -(-first // k_block), outer)


def _is_long(product: Node) -> bool:
    """Few sums, each over so much that it does not stay in the first-level cache until the next
    tile of sums needs it again: the gradient of a convolution's weight.
    """
    over = _over(product)
    short = math.prod(product.type.shape[-2:]) * 4 <= _L1_BYTES
    return not product.integer("batch") and short and math.prod(over[1:]) >= _LONG and len(over) > 2


def _long_tile(product: Node) -> Tile:
    """As many steps of K at a time as both operands may take of the first-level cache; rows in two
    halves, for two threads.
    """
    m, n = product.type.shape[-2:]
    over, vectors = _over(product), _vectors(n)
    cut = next(d for d in range(1, len(over)) if math.prod(over[d + 1 :]) <= _STEPS)
    k_block = min(over[cut], max(1, _STEPS // math.prod(over[cut + 1 :])))
    m_block = m // 2 if m % 2 == 0 and m >= 8 else m
    rows = -(-m_block // -(-m_block // (_SUMS // vectors)))
    blocks = -(-over[cut] // k_block)
    return Tile("outer", rows, vectors, k_block, m_block, blocks, cut=cut)


def _over(product: Node) -> tuple[int, ...]:
    """The dimensions that are summed over."""
    return product.args[1].type.shape[-1 - _depth(product) : -1]


def _is_packed(product: Node) -> bool:
    """Many rows meet a right operand that is too large to stay in the first-level cache, or that
    lies turned.  What only one product reads, as the turned weight of a convolution, is copied so
    for fewer rows, too: as a whole its copy would lie in memory.
    """
    lying = strides(product.args[1])
    alone = product.op == "contract" and lying is not None and lying[-1] != 1
    rows = math.prod(product.type.shape[:-1])
    return rows >= (_FEW_ROWS if alone else _PACKED_ROWS) and _may_be_packed(product)


def _may_be_packed(product: Node) -> bool:
    """One large right operand for all rows, which lies in memory."""
    b = product.args[1]
    if product.type.dtype != "f32" or len(b.type.shape) > 2 + _depth(product) - 1:
        return False
    if product.op == "matmul" and len(product.type.shape) > 2:
        return False
    depth = math.prod(b.type.shape[:-1])
    return (
        product.type.size > 0
        and depth >= 32
        and b.type.size >= 64 * depth
        and strides(b) is not None
    )


def _depth(product: Node) -> int:
    """Number of dimensions that are summed over."""
    return product.integer("k") if product.op == "contract" else 1


def _packed_tile(product: Node) -> Tile:
    """Panels of two vectors and six rows; as many columns at a time as the copies may take."""
    right, n = product.args[1].type.shape, product.type.shape[-1]
    cut = _packed_cut(right[:-1])
    first, rest = right[cut], math.prod(right[cut + 1 : -1])
    k_block = _even_part(first, rest, _PACKED_K)
    rows, outer = _panel_rows(product.type.shape)
    vectors = 2 if rows * outer > 4 else 3
    width = vectors * LANES
    pack_left = _left_is_copied(product, rows, outer)
    room = _WIDE_PANELS_BYTES if cut or pack_left else _PANELS_BYTES
    panels = max(1, room // (4 * k_block * rest * width))
    blocks = -(-n // (panels * width))
    blocks += blocks % 2 if n > blocks * width else 0  # two threads share them evenly
    n_block = _block_of_columns(n, blocks, width)
    m_block = _block_of_rows(product, rows, pack_left)
    return Tile(
        "packed", rows, vectors, k_block, m_block, -(-first // k_block), outer, n_block, pack_left,
        cut, n_copied=-(-n_block // width) * width,
    )  # fmt: skip


def _block_of_columns(n: int, blocks: int, width: int) -> int:
    """Blocks of one size, for threads to share, whose last panel wants no more than a vector; where
    N has none, whole panels, and a last block that is narrower.
    """
    for count in range(blocks, 4 * blocks + 1, 2):
        size, left = divmod(n, count)
        if left == 0 and size % LANES == 0 and size % width in (0, width - LANES):
            return size
    return -(-n // (blocks * width)) * width


def stored_tile(product: Node) -> Tile | None:
    """For a right operand that is stored in panels; None where that cannot be."""
    right, n = product.args[1].type.shape, product.type.shape[-1]
    panels, left = divmod(n, PANEL)
    if left or not _may_be_packed(product):
        return None
    if _has_border(product):
        return _border_tile(product, stored=True)
    k_block = _even_part(right[0], math.prod(right[1:-1]), _STORED_K)
    rows, outer = _panel_rows(product.type.shape)
    blocks = max((b for b in range(1, 9) if panels % b == 0), key=lambda b: (b % 2 == 0, b))
    pack_left = _left_is_copied(product, rows, outer)
    m_block = _block_of_rows(product, rows, pack_left)
    return Tile(
        "packed", rows, PANEL // LANES, k_block, m_block, -(-right[0] // k_block), outer,
        n // blocks, pack_left, stored=True,
    )  # fmt: skip


def _has_border(product: Node) -> bool:
    return border_of(product.args[0]) is not None


def _border_tile(product: Node, stored: bool) -> Tile:
    """Rows are images, `m_block` of them at a time.  Taps are loops around all else, so sums pass
    through the scratch: of as many columns as stay in the second-level cache, copied or stored.
    """
    if sums_over_images(product):
        return _taps_tile(product)
    (*_, channels, n), places = product.args[1].type.shape, math.prod(product.type.shape[1:-1])
    images = _block_of_images(product.type.shape[0], 4 * places * (channels + PANEL))
    rows = -(-images // -(-images // 6))
    vectors = 2 if stored or rows > 4 else 3
    width, cut = vectors * LANES, _depth(product) - 1
    k_block = _even_part(channels, 1, _STORED_K if stored else _PACKED_K)
    n_block = n_copied = width
    if not stored:
        columns = min(_WIDE_PANELS_BYTES // (4 * k_block), _L2_BYTES // (4 * images * places))
        blocks = -(-n // max(width, columns // width * width))
        n_block = _block_of_columns(n, blocks + blocks % 2, width)
        n_copied = -(-n_block // width) * width
    return Tile(
        "packed", rows, vectors, k_block, images, -(-channels // k_block), 1, n_block, False,
        cut, stored, n_copied,
    )  # fmt: skip


def _taps_tile(product: Node) -> Tile:
    """Of a gradient that sums over images: few blocks of K and of rows, for each is written once
    for every run of taps.
    """
    (images, *places, n), m = product.args[1].type.shape, product.type.shape[-2]
    k_block = _even_part(images, math.prod(places), _SUMMED_K)
    rows, width, depth = min(6, m), 2 * LANES, k_block * math.prod(places)
    pack_left = 4 * m >= _FAR_BYTES
    every = -(-m // rows) * rows
    m_block = every if 4 * m * depth <= _L2_BYTES else _block_of_rows(product, rows, pack_left)
    blocks = -(-n // max(width, _WIDE_PANELS_BYTES // (4 * depth) // width * width))
    n_block = _block_of_columns(n, blocks + blocks % 2, width)
    return Tile(
        "packed", rows, 2, k_block, m_block, -(-images // k_block), 1, n_block, pack_left,
        n_copied=-(-n_block // width) * width,
    )  # fmt: skip


def _block_of_images(count: int, image_bytes: int) -> int:
    """As many as stay in the second-level cache: a part of all, unless that would make tiles low"""
    parts = [m for m in range(_LOW, count) if count % m == 0 and m * image_bytes <= _IMAGES_BYTES]
    return max(parts, default=count)


def _even_part(first: int, rest: int, steps: int) -> int:
    """Of a dimension with `rest` steps of K in each place, the places that make about `steps`."""
    count = max(1, round(first * rest / steps)) if rest < steps else first
    return -(-first // min(count, first))


def _panel_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of a tile: of the last dimension before N, and of the one before that."""
    m = shape[-2]
    if len(shape) == 2:
        return min(6, m), 1
    rows = -(-m // -(-m // 6))
    return rows, max(d for d in range(1, 6 // rows + 1) if shape[-3] % d == 0)


def _left_is_copied(product: Node, rows: int, outer: int) -> bool:
    """Its rows are neighbours in memory, and its steps of K far apart."""
    shape, left = product.type.shape, strides(product.args[0])
    if left is None or outer > 1 or shape[-2] < 2 * rows:
        return False
    dense = len(shape) == 2 or left[len(shape) - 2] == 1
    return dense and left[-1] * 4 >= _FAR_BYTES


def _block_of_rows(product: Node, rows: int, copied: bool) -> int:
    """What stays in the second-level cache while all panels pass over it; copied, it is dense."""
    m, most = product.type.shape[-2], (16 if copied else 8) * rows
    return -(-m // (-(-m // most) * rows)) * rows


def _packed_cut(over: tuple[int, ...]) -> int:
    """The dimension of K to take in blocks: the last where the others make blocks that are too
    deep, so that rows of the right operand are copied in long pieces.
    """
    last = len(over) - 1
    return last if last and math.prod(over[1:]) > 2 * _PACKED_K and over[last] >= 64 else 0


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
