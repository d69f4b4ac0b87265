"""Data sets that torchvision knows."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from xrobust.data.arrays import Arrays, Part, make_arrays, read_npz
from xrobust.data.base import ImageDataModule
from xrobust.errors import UserError


@dataclass(kw_only=True, eq=False)
class TorchvisionImages(ImageDataModule):
    """A data set that torchvision holds in memory: MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN, ...

    Where it exists, a file `<root>/<name>.npz` in the form of `NpzImages` is read instead; <name> is mnist,
    fashion_mnist, cifar10, ...

    Args:
        dataset: a class in `torchvision.datasets`.
        root: the folder with torchvision's files or the .npz file.
        download: fetch what is missing.
    """

    dataset: str
    root: str
    download: bool = False

    def load(self) -> Arrays:
        npz = Path(self.root) / f"{_snake_case(self.dataset)}.npz"
        return read_npz(npz, self.channels) if npz.is_file() else self._from_torchvision(npz)

    def _from_torchvision(self, npz: Path) -> Arrays:
        from torchvision import datasets

        kind = getattr(datasets, self.dataset, None)
        if kind is None:
            close = get_close_matches(self.dataset, datasets.__all__, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise UserError(
                f"data.dataset={self.dataset!r} is not in torchvision.datasets and {npz} does not exist{hint}"
            )
        train, test = self._part_of(kind, True, npz), self._part_of(kind, False, npz)
        return make_arrays(self.dataset, self.channels, train, test)

    def _part_of(self, kind: type, train: bool, npz: Path) -> Part:
        by_flag = "train" in inspect.signature(kind).parameters
        choice = {"train": train} if by_flag else {"split": "train" if train else "test"}
        try:
            if self.download:
                self._fetch(kind, choice)
            part = kind(self.root, **choice)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"{self.dataset} is not in data.root={self.root!r} ({error}): "
                f"set data.download=true, or put {npz} (x_train, y_train, x_test, y_test) there"
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(f"data.dataset={self.dataset!r} does not work here, use data=arrays: {error}") from error
        return _images_and_labels(part, self.dataset)

    def _fetch(self, kind: type, choice: dict) -> None:
        from filelock import FileLock

        root = Path(self.root)
        root.mkdir(parents=True, exist_ok=True)
        # One of the processes downloads, the others wait and then find the files.
        with FileLock(root / ".download.lock"):
            kind(self.root, download=True, **choice)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _images_and_labels(part: object, name: str) -> Part:
    """torchvision calls the images `data` and the labels `targets` or `labels`."""
    images = getattr(part, "data", None)
    labels = getattr(part, "targets", getattr(part, "labels", None))
    if images is None or labels is None:
        raise UserError(f"data.dataset={name!r} keeps its images in files, use data=folder")
    return np.asarray(images), np.asarray(labels)
