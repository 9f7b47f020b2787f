"""What a convolution is made of."""

from __future__ import annotations

import pytest

from batucada.ir.graph import Node, input_node
from batucada.ir.types import Type
from batucada.ops import ATEN


def _input(name: str, *shape: int) -> Node:
    return input_node(name, Type("f32", shape), "input")


def _below(*nodes: Node) -> set[Node]:
    found: set[Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.args
    return found


X, W = _input("x", 2, 8, 4, 4), _input("w", 6, 8, 3, 3)
GEOMETRY = ((1, 1), (36, 36), (36, 36), False, (0, 0), 1)


def test_taps_that_see_padding_only_take_no_part() -> None:
    """A dilation of 36 on an image of 4 pixels: padded, it would be 361 times as large."""
    out = ATEN["aten.convolution.default"](X, W, None, *GEOMETRY)
    grad = _input("grad", *out.type.shape)
    found = ATEN["aten.convolution_backward.default"](
        grad, X, W, None, *GEOMETRY, (True, True, False)
    )
    large = max(node.type.size for node in _below(out, *found[:2]))
    assert large <= max(W.type.size, X.type.size, grad.type.size)


@pytest.mark.parametrize("extent", [1, 8])
def test_one_tap_with_a_step_copies_no_weight(extent: int) -> None:
    x, w = _input("x", 2, 16, extent, extent), _input("w", 32, 16, 1, 1)
    geometry = ((2, 2), (0, 0), (1, 1), False, (0, 0), 1)
    places = -(-extent // 2)
    grad = _input("grad", 2, 32, places, places)
    grad_x, _, _ = ATEN["aten.convolution_backward.default"](
        grad, x, w, None, *geometry, (True, False, False)
    )
    before = {"slice", "permute", "reshape", "input"}
    sliced = [n for n in _below(grad_x) if n.op == "slice" and w in _below(n)]
    assert not [n for n in sliced if {m.op for m in _below(n)} <= before]


def _paddings(images: int, extent: int, channels: int = 32) -> list[str]:
    """How the products of a padded convolution and of its gradients have their padding."""
    x, w = _input("x", images, channels, extent, extent), _input("w", 32, channels, 3, 3)
    geometry = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    out = ATEN["aten.convolution.default"](x, w, None, *geometry)
    grad_x, grad_w, _ = ATEN["aten.convolution_backward.default"](
        _input("grad", *out.type.shape), x, w, None, *geometry, (True, True, False)
    )
    return [n.op for end in (out, grad_x, grad_w) for n in _below(end) if n.op in ("pad", "border")]


def test_products_leave_out_the_padding_of_small_images() -> None:
    assert _paddings(8, 2) == _paddings(2, 8) == ["border"] * 3


def test_padding_lies_in_memory_where_little_of_the_products_meets_it() -> None:
    """Or where there is one image, or where channels are few."""
    assert _paddings(8, 16) == _paddings(1, 2) == _paddings(8, 2, channels=3) == ["pad"] * 3
