"""Random graphs: every step of the compiler keeps their meaning, which the oracle defines."""

from __future__ import annotations

import numpy as np
from hypothesis import given, note, settings

from batucada.ir.graph import Graph
from batucada.ir.text import graph_hash, parse_graph, print_graph
from batucada.ir.verify import verify
from batucada.passes.layout import store_weights_packed
from batucada.passes.simplify import simplify
from batucada.runtime.oracle import evaluate
from tests.runtime.native_graph import NativeGraph, Values
from tests.runtime.random_graphs import graphs, training_steps, values_of


def assert_same(got: Values, expected: Values) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=str(key))


@settings(max_examples=60)
@given(graphs())
def test_simplify_keeps_the_meaning(graph: Graph) -> None:
    values = values_of(graph)
    assert_same(evaluate(verify(simplify(verify(graph))), values), evaluate(graph, values))


@settings(max_examples=60)
@given(graphs())
def test_the_text_parses_back(graph: Graph) -> None:
    text = print_graph(graph)
    again = verify(parse_graph(text))
    assert print_graph(again) == text
    assert graph_hash(again) == graph_hash(graph)
    values = values_of(graph)
    assert_same(evaluate(again, values), evaluate(graph, values))


@settings(max_examples=60)
@given(graphs())
def test_native_code_gives_what_the_oracle_gives(graph: Graph) -> None:
    graph = verify(simplify(graph))
    note(print_graph(graph))
    values = values_of(graph)
    native = NativeGraph(graph, values)
    assert native.call("step") == 0
    assert_same(native.results(), evaluate(graph, values))


@settings(max_examples=20)
@given(training_steps())
def test_a_step_is_its_sections_in_order(graph: Graph) -> None:
    graph = verify(simplify(graph))
    note(print_graph(graph))
    values = values_of(graph)
    expected = evaluate(graph, values)
    by_section = NativeGraph(graph, values)
    by_section.call("fwd", "bckwd", "gradnorm", "opt")
    assert_same(by_section.results(), expected)
    whole = NativeGraph(graph, values)
    whole.call("step", "regrad")
    assert_same(whole.results(), expected)


@settings(max_examples=40)
@given(training_steps())
def test_packed_weights_keep_the_meaning(graph: Graph) -> None:
    graph = verify(simplify(graph))
    note(print_graph(graph))
    packed = verify(store_weights_packed(graph))
    values = values_of(graph)
    stored = {
        n.name: values[n.name].T if ("storage", (1, 0)) in n.attrs else values[n.name]
        for n in packed.inputs
    }
    turned = {n.name for n in packed.inputs if ("storage", (1, 0)) in n.attrs}
    found = evaluate(packed, stored)
    expected = evaluate(graph, values)
    for (role, name), value in expected.items():
        got = found[role, name]
        np.testing.assert_array_equal(got.T if role != "output" and name in turned else got, value)
