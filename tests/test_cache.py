"""The compile cache: what is taken from it, what is not, and that it never stands in the way."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import batucada as bt
from batucada import cache as cache_module
from batucada.cache import Cache, cache_folder

X = torch.ones(3, 4)


def compiled(folder: Path, scale: float = 1.0, **options: object) -> bt.Compiled:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * scale

    chosen = bt.Options(**{"cache": str(folder / "cache"), **options})  # type: ignore[arg-type]
    return bt.compile(
        Scaled(), (bt.NamedTensor("x", X),), path=folder / "m.pef", name="m", options=chosen
    )


def was_cached(folder: Path) -> bool:
    return bt.load(folder / "m.pef").manifest.report["cached"]


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("*"))


def test_the_second_compile_is_the_first_one(tmp_path: Path) -> None:
    first = compiled(tmp_path)
    assert not was_cached(tmp_path)
    code = bt.load(tmp_path / "m.pef").pef.member("kernels.py")
    second = compiled(tmp_path)
    assert was_cached(tmp_path)
    assert bt.load(tmp_path / "m.pef").pef.member("kernels.py") == code
    assert second.texts == first.texts
    assert "object" not in second.report["seconds"]
    assert len(entries(tmp_path)) == 1


def test_another_model_or_another_option_is_compiled(tmp_path: Path) -> None:
    compiled(tmp_path)
    compiled(tmp_path, scale=2.0)
    assert not was_cached(tmp_path)
    compiled(tmp_path, checked=True)
    assert not was_cached(tmp_path)
    compiled(tmp_path, target="x86-64-v2")
    assert not was_cached(tmp_path)
    assert len(entries(tmp_path)) == 4


def test_the_steps_are_made_where_they_are_looked_at(tmp_path: Path) -> None:
    compiled(tmp_path)
    compiled(tmp_path, dump_dir=tmp_path / "dump")
    assert not was_cached(tmp_path)
    assert list((tmp_path / "dump").glob("*-kernels.py"))


@pytest.mark.parametrize("damage", [b"", b"not a PEF", None])
def test_a_damaged_entry_is_made_again(damage: bytes | None, tmp_path: Path) -> None:
    compiled(tmp_path)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100] + b"x" + whole[101:] if damage is None else damage)
    compiled(tmp_path)
    assert not was_cached(tmp_path)
    compiled(tmp_path)
    assert was_cached(tmp_path)


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    compiled(tmp_path)
    assert not was_cached(tmp_path)


def test_off(tmp_path: Path) -> None:
    compiled(tmp_path, cache="off")
    assert entries(tmp_path) == []


def test_what_was_not_used_for_longest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, scale in enumerate([1.0, 2.0, 3.0]):
        compiled(tmp_path, scale=scale)
        newest = max(entries(tmp_path), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (1000 + age, 1000 + age))
    compiled(tmp_path, scale=1.0)  # used again
    size = max(path.stat().st_size for path in entries(tmp_path))
    monkeypatch.setattr(cache_module, "MAX_BYTES", 3 * size)
    compiled(tmp_path, scale=4.0)
    assert len(entries(tmp_path)) == 3
    compiled(tmp_path, scale=1.0)
    assert was_cached(tmp_path)
    compiled(tmp_path, scale=2.0)
    assert not was_cached(tmp_path)


def test_where_it_is() -> None:
    assert cache_folder(None, {"XDG_CACHE_HOME": "/x"}) == Path("/x/batucada")
    assert cache_folder("/y", {}) == Path("/y")
    assert cache_folder("off", {}) is None
    assert Cache(Path("/nowhere")).find("0" * 64) is None


def test_the_report_tells_pytorch_from_the_compiler(tmp_path: Path) -> None:
    for _ in range(2):
        report = compiled(tmp_path).report
        assert 0 < report["pytorch_s"] < report["seconds"]["capture"]
        assert bt.load(tmp_path / "m.pef").manifest.report["pytorch_s"] == report["pytorch_s"]


def test_garbage_is_collected_as_before(tmp_path: Path) -> None:
    before = gc.get_threshold()
    paces = []

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            paces.append(gc.get_threshold())
            return x + 1

    bt.compile(Model(), X, path=tmp_path / "m.pef", options=bt.Options(cache="off"))
    assert paces[0][0] > before[0]
    assert gc.get_threshold() == before
