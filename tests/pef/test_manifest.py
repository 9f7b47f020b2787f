"""The manifest is read strictly: each error names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batucada.errors import PefError
from batucada.pef import SymbolRecord
from batucada.pef.manifest import manifest_text, parse_manifest

from .samples import sample_manifest


def test_round_trip() -> None:
    manifest = sample_manifest()
    assert parse_manifest(manifest_text(manifest)) == manifest


@given(value=st.floats(allow_nan=False))
def test_every_float_survives(value: float) -> None:
    manifest = replace(sample_manifest(), hyperparameters={"lr": value})
    assert parse_manifest(manifest_text(manifest)).hyperparameters["lr"] == value


def edited(edit: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(manifest_text(sample_manifest()))
    edit(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(colour="red"), "manifest: unknown field 'colour'"),
        (lambda m: m.pop("slots"), "manifest: field 'slots' is missing"),
        (lambda m: m.update(training=1), "manifest.training: expected bool, found int"),
        (lambda m: m["slots"][0].update(bytes=True), r"slots\[0\].bytes: expected int, found bool"),
        (lambda m: m.update(name=None), "manifest.name: expected str, found null"),
        (lambda m: m.update(symbols={}), "manifest.symbols: expected list, found dict"),
        (lambda m: m["symbols"][1].update(role="king"), r"symbols\[1\].role: 'king' is none of"),
        (lambda m: m["symbols"][1].update(dtype="f8"), r"symbols\[1\].dtype: 'f8' is none of"),
        (lambda m: m["symbols"][1].update(role=[]), r"symbols\[1\].role: \[\] is none of"),
        (lambda m: m["slots"][2].update(bytes=23), "'x' ends at byte 24 of slot 'x', which has 23"),
        (lambda m: m["symbols"][0].update(shape=[-1]), "'x' has the shape"),
        (lambda m: m["symbols"][0].update(slot=3), "'x': slot 3, offset 0 is outside"),
        (
            lambda m: m["symbols"][1].update(offset=169),
            "ends at byte 193 of slot 'arena', which has 192",
        ),
        (lambda m: m["symbols"][1].update(storage=[0, 0]), "does not permute"),
        (lambda m: m["symbols"][2].update(of="y"), "belongs to 'y', which is no symbol"),
        (lambda m: m["symbols"][0].update(name="lr"), "two symbols have the same name"),
        (lambda m: m["entries"]["run"].update(stages=["s9"]), r"entries\.run: there is no 's9'"),
        (lambda m: m["sections"][0].update(stages=["s9"]), r"sections\.FWD: there is no 's9'"),
        (lambda m: m["optimizers"][0].update(parameters=["v"]), "optimizers: there is no 'v'"),
        (lambda m: m["stages"].append(m["stages"][0]), "two stages have the same name"),
        (lambda m: m["hyperparameters"].update(lr="fast"), "lr: expected float, found str"),
        (lambda m: m["members"].update(a=1), "manifest.members.a: expected str, found int"),
    ],
)
def test_what_is_wrong_is_named(edit: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(PefError, match=message):
        parse_manifest(edited(edit))


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', "{", "1" * 5000])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(PefError, match=r"manifest\.json"):
        parse_manifest(text)


def test_a_contradiction_is_not_written() -> None:
    stray = SymbolRecord("stray", "input", "f32", (4,), slot=7)
    with pytest.raises(PefError, match="'stray': slot 7"):
        manifest_text(replace(sample_manifest(), symbols=(stray,)))


def test_lookups() -> None:
    manifest = sample_manifest()
    assert manifest.symbol_by_name["net__w"].bytes == 24
    assert [symbol.name for symbol in manifest.of_role("input", "hyper")] == ["x", "lr"]
    assert manifest.stage_by_name["s0"].kernel == "twice"
