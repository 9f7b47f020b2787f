"""The artifact round-trips, is written whole or not at all, and no damage to it goes unnoticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import random
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batucada.errors import OutputError, PefError
from batucada.pef import Pef, read_pef, write_pef
from batucada.pef import write as writer
from batucada.pef.archive import DEFLATE_LIMIT_BYTES, DIGEST_BYTES, SEAL
from batucada.pef.manifest import FORMAT_VERSION

from .samples import MEMBERS, sample_manifest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pef") / "whole.pef"
    write_pef(path, sample_manifest(), MEMBERS)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model.pef"


def reseal(data: bytes) -> bytes:
    """`data` with a seal that fits: damage as somebody would make it on purpose."""
    body = data[:-DIGEST_BYTES]
    return body + hashlib.sha256(body).hexdigest().encode()


def sealed_zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = SEAL + b"0" * DIGEST_BYTES
        for name, data in members:
            archive.writestr(name, data)
    return reseal(buffer.getvalue())


def unpacked(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def read_all(path: Path, data: bytes) -> Pef:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    pef = read_pef(path)
    for name in pef.names:
        pef.member(name)
    return pef


def test_round_trip(path: Path) -> None:
    write_pef(path, sample_manifest(), MEMBERS)
    pef = read_pef(path)
    assert {name: pef.member(name) for name in pef.names} == MEMBERS
    assert pef.text("kernels.py") == MEMBERS["kernels.py"].decode()
    expected = sample_manifest()
    for field in ("symbols", "sections", "entries", "hyperparameters", "optimizers", "target"):
        assert getattr(pef.manifest, field) == getattr(expected, field)


def test_same_arguments_same_bytes(path: Path, whole: bytes) -> None:
    write_pef(path, sample_manifest(), dict(reversed(MEMBERS.items())))
    assert path.read_bytes() == whole


def test_pef_outlives_its_file(path: Path) -> None:
    write_pef(path, sample_manifest(), MEMBERS)
    pef = read_pef(path)
    write_pef(path, sample_manifest(), {"module.ll": b"another"})
    assert pef.member("module.ll") == MEMBERS["module.ll"]
    path.unlink()
    assert pef.member("module.ll") == MEMBERS["module.ll"]


LARGE = {name: random.Random(name).randbytes(1 << 16) for name in ("module.ll", "a", "b", "c")}
"""More than is read at once."""


def test_a_file_that_is_overwritten_in_place_is_noticed(path: Path) -> None:
    write_pef(path, sample_manifest(), LARGE)
    pef = read_pef(path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(PefError, match="damaged"):
        pef.member("module.ll")


def test_a_fork_reads_at_a_place_of_its_own(path: Path) -> None:
    write_pef(path, sample_manifest(), LARGE)
    pef = read_pef(path)

    def is_whole() -> bool:
        return all(pef.member(name) == LARGE[name] for name in 20 * pef.names)

    child = os.fork()
    if child == 0:
        os._exit(0 if is_whole() else 1)
    assert is_whole()
    assert os.waitpid(child, 0) == (child, 0)


def test_unknown_member(path: Path) -> None:
    write_pef(path, sample_manifest(), MEMBERS)
    with pytest.raises(PefError, match=r"no member 'nothing'.*module\.ll"):
        read_pef(path).member("nothing")


def test_binary_member_is_no_text(path: Path) -> None:
    write_pef(path, sample_manifest(), MEMBERS)
    with pytest.raises(PefError, match="is not text"):
        read_pef(path).text("object/x86-64-v3.o")


# ---- damage


def test_every_flipped_byte_is_noticed(path: Path, whole: bytes) -> None:
    path.parent.mkdir()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        path.write_bytes(damaged)
        with pytest.raises(PefError):
            read_pef(path)


@given(data=st.data())
def test_truncated(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "cut.pef"
    path.write_bytes(whole[:length])
    with pytest.raises(PefError, match=r"PEF|empty"):
        read_pef(path)


@given(noise=st.binary(max_size=400), prefix=st.sampled_from([b"", b"PK\x03\x04", SEAL]))
def test_random_bytes(tmp_path: Path, noise: bytes, prefix: bytes) -> None:
    path = tmp_path / "noise.pef"
    path.write_bytes(prefix + noise)
    with pytest.raises(PefError):
        read_pef(path)


@settings(max_examples=400)
@given(data=st.data())
def test_damage_under_a_fitting_seal_never_escapes(
    tmp_path: Path, whole: bytes, data: st.DataObject
) -> None:
    """Only PefError may come out, and a member that is accepted has its contents."""
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(whole) - len(SEAL) - DIGEST_BYTES - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        pef = read_all(tmp_path / "resealed.pef", reseal(bytes(damaged)))
    except PefError:
        return
    assert {name: pef.member(name) for name in pef.names} == MEMBERS


@given(text=st.text(max_size=200), value=st.recursive(st.none() | st.integers(), st.lists))
def test_any_manifest_text(tmp_path: Path, text: str, value: object) -> None:
    for manifest in (text, json.dumps(value), json.dumps({"format_version": value})):
        encoded = manifest.encode("utf-8", "surrogatepass")
        with pytest.raises(PefError):
            read_all(tmp_path / "m.pef", sealed_zip([("manifest.json", encoded)]))


def test_deeply_nested_manifest(path: Path) -> None:
    with pytest.raises(PefError, match="JSON"):
        read_all(path, sealed_zip([("manifest.json", b"[" * 200_000)]))


def test_plain_zip_is_no_pef(path: Path) -> None:
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(PefError, match="without a PEF's seal"):
        read_pef(path)


def test_missing_and_extra_member(path: Path, whole: bytes) -> None:
    members = unpacked(whole)
    with pytest.raises(PefError, match=r"member report\.json is missing"):
        read_all(path, sealed_zip([m for m in members if m[0] != "report.json"]))
    with pytest.raises(PefError, match="member stray is not in its manifest"):
        read_all(path, sealed_zip([*members, ("stray", b"")]))


def test_exchanged_member(path: Path, whole: bytes) -> None:
    members = [(n, b"other" if n == "module.ll" else data) for n, data in unpacked(whole)]
    with pytest.raises(PefError, match=r"module\.ll has another SHA-256"):
        read_all(path, sealed_zip(members))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a//b", "a/../b", "..", "C:\\evil"])
def test_path_tricks(path: Path, whole: bytes, name: str) -> None:
    with pytest.raises(PefError, match="no name for a member"):
        read_all(path, sealed_zip([*unpacked(whole), (name, b"")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_same_member_twice(path: Path, whole: bytes) -> None:
    members = unpacked(whole)
    with pytest.raises(PefError, match="same name"):
        read_all(path, sealed_zip([*members, members[-1]]))


def test_exotic_compression(path: Path, whole: bytes) -> None:
    with pytest.raises(PefError, match="neither stored nor deflated"):
        read_all(path, sealed_zip(unpacked(whole), zipfile.ZIP_BZIP2))


def test_huge_declared_size(path: Path, whole: bytes) -> None:
    central = whole.index(b"PK\x01\x02")
    damaged = bytearray(whole)
    damaged[central + 24 : central + 28] = (DEFLATE_LIMIT_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(PefError, match="declares"):
        read_all(path, reseal(bytes(damaged)))


@pytest.mark.parametrize(("found", "age"), [(99, "newer"), (0, "older")])
def test_other_format_version(path: Path, whole: bytes, found: int, age: str) -> None:
    members = dict(unpacked(whole))
    manifest = json.loads(members["manifest.json"]) | {"format_version": found}
    members["manifest.json"] = json.dumps(manifest).encode()
    reads = f"reads version {FORMAT_VERSION}"
    with pytest.raises(PefError, match=rf"{age} format version {found}; .* {reads}"):
        read_all(path, sealed_zip(list(members.items())))


def test_missing_file_and_folder(path: Path, tmp_path: Path) -> None:
    with pytest.raises(PefError, match=r"model\.pef: no such PEF"):
        read_pef(path)
    with pytest.raises(PefError, match="is not a file"):
        read_pef(tmp_path)
    with pytest.raises(PefError):
        read_pef("nul\0byte")


# ---- writing


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may grow to 1,000 bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_full_disk_leaves_nothing(path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*model\.pef: File too large"):
        write_pef(path, sample_manifest(), MEMBERS)
    assert list(path.parent.iterdir()) == []


def test_interrupt_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pef(path, sample_manifest(), MEMBERS)
    old = path.read_bytes()

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_pef(path, sample_manifest(), {})
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == old


def test_target_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Is a directory"):
        write_pef(tmp_path, sample_manifest(), MEMBERS)
    assert not list(tmp_path.parent.glob("*.partial"))


def test_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_pef(tmp_path / "out" / "model.pef", sample_manifest(), MEMBERS)


def test_killed_writer_leaves_a_partial_that_the_next_write_removes(path: Path) -> None:
    program = f"""
import os, signal
from batucada.pef import write, write_pef
from tests.pef.samples import MEMBERS, sample_manifest
write.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
write_pef({str(path)!r}, sample_manifest(), MEMBERS)
"""
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=environ, check=False)
    assert done.returncode == -9
    (left,) = path.parent.iterdir()
    assert left.name.startswith("model.pef.")
    assert left.suffix == ".partial"
    write_pef(path, sample_manifest(), MEMBERS)
    assert list(path.parent.iterdir()) == [path]


def test_partial_of_a_living_process_stays(path: Path) -> None:
    path.parent.mkdir()
    living = path.parent / f"model.pef.{platform.node()}-{os.getppid()}-1.partial"
    living.touch()
    write_pef(path, sample_manifest(), MEMBERS)
    assert living.exists()
