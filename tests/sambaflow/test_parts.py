"""The smaller modules: loader, profiler, MNIST, dtypes, collections, logging."""

from __future__ import annotations

import gzip
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from batucada.errors import DataError, OptionError
from sambaflow import samba
from sambaflow.logging import no_effect, samba_logger
from sambaflow.samba.profiler import Profiler
from sambaflow.samba.sambaloader import DataLoaderException, SambaLoader
from sambaflow.samba.utils import SNType, parse_dtype
from sambaflow.samba.utils.benchmark_acc import AccuracyReport
from sambaflow.samba.utils.dataset import mnist
from sambaflow.sambacollections import OrderedSet

BATCHES = [(torch.full((2,), float(i)), torch.tensor([i])) for i in range(5)]


def test_loader_names_tensors_in_order() -> None:
    loader = SambaLoader(BATCHES, ["image", "label"], maxsize=2)
    assert len(loader) == 5
    seen = [(image.name, label.name, label.item()) for image, label in loader]
    assert seen == [("image", "label", i) for i in range(5)]


def test_loader_applies_the_hook_and_returns_the_original() -> None:
    loader = SambaLoader(
        BATCHES, ["image"], function_hook=lambda b: [b[0]], return_original_batch=True
    )
    for (named,), original in loader:
        assert named.torch() is original[0]


def failing() -> Iterator[tuple[torch.Tensor]]:
    yield (torch.ones(1),)
    raise OSError("disk on fire")


def test_loader_reports_a_failure_or_ends() -> None:
    with pytest.raises(DataLoaderException, match="disk on fire"):
        list(SambaLoader(failing(), ["x"]))
    assert len(list(SambaLoader(failing(), ["x"], ignore_dataloader_exception=True))) == 1
    with pytest.raises(DataLoaderException, match="1 tensors for the names"):
        list(SambaLoader([(torch.ones(1),)], ["x", "y"]))


def test_a_loader_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    for _ in SambaLoader(BATCHES * 10, ["a", "b"], maxsize=1):
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_profiler_counts_events_and_refuses_what_did_not_happen() -> None:
    profiler = Profiler()
    for _ in range(3):
        with profiler.event("step"):
            pass
    profiler.end_event(profiler.start_event("other"))
    assert profiler.get_latencies(["step", "other"])["step"] > 0
    assert profiler.get_throughputs(["step"], 4, warmup=1)["step"] > 0
    with pytest.raises(OptionError, match="'step' happened 3 times"):
        profiler.get_latencies(["step"], warmup=3)


@pytest.mark.parametrize("side", [28, 14])
def test_mnist_transform_normalises_and_resizes(side: int) -> None:
    image = Image.new("L", (28, 28), color=255)
    made = mnist.dataset_transform({"num_features": side * side})(image)
    assert made.shape == (side * side,)
    assert torch.allclose(made, torch.full_like(made, (1 - 0.1307) / 0.3081))
    with pytest.raises(OptionError, match="square"):
        mnist.dataset_transform({"num_features": 785})


def write_mnist(folder: Path, images: int, labels: int) -> Path:
    folder.mkdir(parents=True)
    pixels = bytes(i % 256 for i in range(images * 784))
    for part in ("train", "t10k"):
        head = struct.pack(">IIII", 2051, images, 28, 28)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels))
        body = struct.pack(">II", 2049, labels) + bytes(range(labels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(body))
    return folder


def test_loading_all_images_at_once_equals_the_transform(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", 3, 3)
    settings = {"num_features": 784}
    data = mnist.load_mnist(tmp_path, settings, train=True)
    images, labels = data.tensors
    transform = mnist.dataset_transform(settings)
    from torchvision.datasets import MNIST

    expected = MNIST(str(tmp_path), train=True)
    for place in range(len(expected)):
        image, label = expected[place]
        assert torch.equal(images[place], transform(image))
        assert labels[place] == label


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "_download", lambda folder: "no network")


@pytest.mark.usefixtures("_offline")
def test_missing_mnist_comes_from_the_sample_in_a_folder_of_its_own(tmp_path: Path) -> None:
    sample = write_mnist(tmp_path / "packed", 2, 2)
    data = mnist.load_mnist(tmp_path / "data", {"num_features": 784}, train=False, sample=sample)
    assert len(data) == 2
    assert not (tmp_path / "data" / "MNIST").exists()
    with pytest.raises(DataError, match="no network"):
        mnist.load_mnist(tmp_path / "other", {"num_features": 784}, train=False)


@pytest.mark.usefixtures("_offline")
def test_damaged_mnist_is_named(tmp_path: Path) -> None:
    settings = {"num_features": 784}
    raw = write_mnist(tmp_path / "counts" / "MNIST" / "raw", 3, 2)
    with pytest.raises(DataError, match="3 images, 2 labels"):
        mnist.load_mnist(tmp_path / "counts", settings, train=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(DataError, match="damaged"):
        mnist.load_mnist(tmp_path / "counts", settings, train=True)
    packed = write_mnist(tmp_path / "gzip" / "MNIST" / "raw", 3, 3) / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        mnist.load_mnist(tmp_path / "gzip", settings, train=True)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="does not hold MNIST"):
        mnist.load_mnist(tmp_path / "counts", settings, train=True, sample=raw)


def test_batches_are_whole_and_hold_every_image_once() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    for shuffle in (False, True):
        made = list(mnist.batches(data, 3, shuffle=shuffle))
        assert [len(images) for images, _ in made] == [3, 3, 3]
        labels = torch.cat([labels for _, labels in made])
        assert torch.equal(torch.cat([images for images, _ in made])[:, 0], labels.float())
        assert len(labels.unique()) == 9
    [(_, all_labels)] = mnist.batches(data, 10, shuffle=False)
    assert all_labels.tolist() == list(range(10))


def test_batches_come_in_the_order_of_a_dataloader() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(7.0)[:, None], torch.arange(7))
    for batch_size in (1, 2):
        torch.manual_seed(3)
        loader = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True)
        expected = [labels.tolist() for _, labels in loader]
        torch.manual_seed(3)
        ours = mnist.batches(data, batch_size, shuffle=True)
        assert [labels.tolist() for _, labels in ours] == expected


def test_a_batch_larger_than_the_data_is_refused() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    with pytest.raises(OptionError, match="--batch-size 11 is more than the 10 images"):
        mnist.batches(data, 11, shuffle=False)


def test_dtypes_by_name() -> None:
    assert parse_dtype("bf16") == parse_dtype("torch.bfloat16") == torch.bfloat16
    assert SNType.INT32.to_torch_reference_type == torch.int32
    with pytest.raises(OptionError, match="'randn' is not a dtype"):
        parse_dtype("randn")


def test_accuracy_report_is_json(tmp_path: Path) -> None:
    import json

    AccuracyReport(val_metrics={"acc": 0.9}, batch_size=4).save(tmp_path / "a" / "report.json")
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["val_metrics"] == {"acc": 0.9}
    assert report["batch_size"] == 4


def test_ordered_set_keeps_order() -> None:
    made = OrderedSet([3, 1, 3, 2])
    made.add(1)
    assert list(made) == [3, 1, 2]
    assert 2 in made
    assert made & {1, 2} == {1, 2}


def test_a_message_is_shown_as_often_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    samba_logger._shown.clear()
    for _ in range(3):
        no_effect("--knob")
        samba_logger.warning("twice", log_limit=2)  # type: ignore[call-arg]
    said = capsys.readouterr().err.splitlines()
    assert [line.split("]: ")[1].split()[0] for line in said] == ["--knob", "twice", "twice"]


def test_consistency_test_compares_two_runs() -> None:
    @samba.test.consistency_test()
    def steady() -> list[tuple[str, torch.Tensor]]:
        return [("x", torch.randn(3))]

    steady()
    calls = []

    @samba.test.consistency_test()
    def drifting() -> list[tuple[str, torch.Tensor]]:
        calls.append(1)
        return [("y", torch.tensor(len(calls)))]

    with pytest.raises(AssertionError, match="two runs: y"):
        drifting()
