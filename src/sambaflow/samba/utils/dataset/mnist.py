"""MNIST images as the starter programs want them: normalised and flat."""

from __future__ import annotations

import argparse
import gzip
import math
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch.utils.data import RandomSampler, TensorDataset

from batucada.errors import DataError, OptionError, OutputError
from sambaflow.logging import samba_logger

Settings = argparse.Namespace | Mapping[str, Any]

# Mean and standard deviation of MNIST's training pixels, scaled to [0, 1].
MEAN, STD = 0.1307, 0.3081
SIDE = 28
DOWNLOAD_TIMEOUT_S = 10.0
FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


def dataset_transform(args: Settings) -> Callable[[Any], torch.Tensor]:
    """A function from a PIL image to an f32 tensor of `args.num_features` normalised pixels.

    Another square than 28 * 28 resizes the image.
    """
    from torchvision import transforms

    side = _side(args)
    steps: list[Any] = [] if side == SIDE else [transforms.Resize((side, side))]
    steps += [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,)), torch.flatten]
    return transforms.Compose(steps)


def _side(args: Settings) -> int:
    features = int((args if isinstance(args, Mapping) else vars(args))["num_features"])
    side = math.isqrt(max(features, 0))
    if side == 0 or side * side != features:
        raise OptionError(f"--num-features is {features}; expected the square of an image's side")
    return side


def load_mnist(
    folder: str | Path, args: Settings, *, train: bool, sample: Path | None = None
) -> TensorDataset:
    """The training or test images, f32[n, num_features], and labels, i64[n], all transformed.

    They are read from `folder`, or downloaded to it; where that fails, unpacked from `sample`, a
    folder with the four gzip files.  DataError when they are damaged or not to be had.
    """
    side = _side(args)
    raw = _folder_with_files(Path(folder), sample)
    part = "train" if train else "t10k"
    try:
        images = _read_idx(raw / f"{part}-images-idx3-ubyte", 3)
        labels = _read_idx(raw / f"{part}-labels-idx1-ubyte", 1).long()
        _check(images, labels)
    except (OSError, ValueError) as error:
        raise DataError(f"the MNIST files in {raw} are damaged; remove them: {error}") from None
    if side != SIDE:
        from torchvision.transforms.functional import to_pil_image

        transform = dataset_transform(args)
        return TensorDataset(torch.stack([transform(to_pil_image(i)) for i in images]), labels)
    # The same arithmetic as of the transform, on all images at once: 3 s less on the training set.
    pixels = images.flatten(1).float().div_(255).sub_(MEAN).div_(STD)
    return TensorDataset(pixels, labels)


def _read_idx(path: Path, rank: int) -> torch.Tensor:
    """The u8 array that an IDX file holds: torchvision reads it, too, but is seconds to import.

    Two zeros, the type (8: bytes), the rank, then the extents, big-endian; ValueError for another.
    """
    data = path.read_bytes()
    head = 4 * (1 + rank)
    if len(data) < head or data[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"{path.name} is no IDX file of bytes in {rank} dimensions")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    if len(data) != head + math.prod(shape):
        raise ValueError(f"{path.name} has {len(data) - head} bytes for an array of {shape}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy())


def _check(images: torch.Tensor, labels: torch.Tensor) -> None:
    """ValueError unless there is a label for every image, and each is of the right kind."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, {len(labels)} labels")
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"images of shape {tuple(images.shape[1:])}, expected {(SIDE, SIDE)}")
    if not len(labels):
        raise ValueError("no images")
    if labels.max() > 9:
        raise ValueError(f"the largest label is {int(labels.max())}")


class Batches:
    """The images and labels of an epoch in whole batches; a smaller last one is left out.

    A batch of one is a view, a larger one a gathered copy: nothing is copied ahead, and a step
    costs less than with a DataLoader.  OptionError when not even one batch is whole.
    """

    def __init__(self, data: TensorDataset, batch_size: int, shuffle: bool) -> None:
        self.images, self.labels = data.tensors
        self.batch_size = batch_size
        self.shuffle = shuffle
        if len(self) == 0:
            count = len(self.labels)
            raise OptionError(f"--batch-size {batch_size} is more than the {count} images")

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = self._order()[: len(self) * self.batch_size]
        if self.batch_size == 1:
            for i in order.tolist():
                yield self.images[i : i + 1], self.labels[i : i + 1]
            return
        for chosen in order.split(self.batch_size):
            yield self.images[chosen], self.labels[chosen]

    def _order(self) -> torch.Tensor:
        """The order in which a DataLoader would take them with the same seed."""
        if not self.shuffle:
            return torch.arange(len(self.labels))
        torch.empty((), dtype=torch.int64).random_()  # it draws its workers' seed first
        return torch.tensor(list(RandomSampler(range(len(self.labels)))))


def batches(data: TensorDataset, batch_size: int, *, shuffle: bool) -> Batches:
    """The batches of an epoch, in a new order each time they are gone through if `shuffle`."""
    return Batches(data, batch_size, shuffle)


def _folder_with_files(folder: Path, sample: Path | None) -> Path:
    """Where the four files are, unpacked."""
    raw = folder / "MNIST" / "raw"
    if not _has_all(raw) and _has_all(raw, ".gz"):
        _unpack(raw, raw)
    if not _has_all(raw) and (reason := _download(folder)):
        if sample is None or any((raw / name).exists() for name in FILES):
            raise DataError(f"{raw} does not hold MNIST, and it cannot be downloaded: {reason}")
        message = f"no MNIST in {folder}, and no download: using the sample."
        samba_logger.warning(message, log_limit=1)  # type: ignore[call-arg]
        raw = folder / "sample" / "MNIST" / "raw"  # its own, never to be taken for the whole set
        _unpack(sample, raw)
    return raw


def _has_all(raw: Path, suffix: str = "") -> bool:
    return all((raw / f"{name}{suffix}").exists() for name in FILES)


def _download(folder: Path) -> str:
    """Fetch and unpack the four files; returns why that failed, or nothing."""
    from torchvision.datasets import MNIST

    try:
        with _timeout(DOWNLOAD_TIMEOUT_S):
            MNIST(str(folder), download=True)
    except (RuntimeError, URLError, OSError, ValueError) as error:
        return str(error)
    return ""


def _unpack(packed: Path, raw: Path) -> None:
    try:
        raw.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (raw / name).write_bytes(gzip.decompress((packed / f"{name}.gz").read_bytes()))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{packed / name}.gz is damaged: {error}") from None
    except OSError as error:
        raise OutputError(f"cannot unpack {packed} to {raw}: {error}") from None


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """A host that does not answer must not hold the program up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
