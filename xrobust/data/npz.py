"""Your own images in one .npz file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xrobust.data.arrays import Arrays, read_npz
from xrobust.data.base import ImageDataModule


@dataclass(kw_only=True, eq=False)
class NpzImages(ImageDataModule):
    """The arrays x_train, y_train, x_test, y_test of an .npz file; `make_arrays` states their form.

    Args:
        path: the file.
    """

    path: str

    def load(self) -> Arrays:
        return read_npz(Path(self.path), self.channels)
