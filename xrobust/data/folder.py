"""Your own images in folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from xrobust.data.arrays import Arrays, Part, make_arrays
from xrobust.data.base import ImageDataModule
from xrobust.errors import UserError

COLOURS = {1: "L", 3: "RGB"}
MANY_IMAGES = 2000


@dataclass(kw_only=True, eq=False)
class FolderImages(ImageDataModule):
    """Image files root/train/<class>/* and root/test/<class>/*, loaded once and held in memory.

    The classes are the folders of root/train in alphabetical order. Images are converted to grey (C = 1) or
    RGB (C = 3), cut to a square around the centre and resized to image_size (bilinear).

    Args:
        root: the folder that has train and test.
    """

    root: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in COLOURS:
            raise UserError(f"data.channels={self.channels} must be 1 (grey) or 3 (RGB) for images in files")

    def load(self) -> Arrays:
        train, test = Path(self.root) / "train", Path(self.root) / "test"
        classes = _subfolders(train)
        strange = set(_subfolders(test)) - set(classes)
        if strange:
            raise UserError(f"{test} has classes that {train} lacks: {', '.join(sorted(strange))}")
        read = self._read(train, classes), self._read(test, classes)
        return make_arrays(self.root, self.channels, *read, tuple(classes))

    def _read(self, folder: Path, classes: list[str]) -> Part:
        suffixes = Image.registered_extensions()
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in suffixes
        ]
        images = np.empty((len(files), self.image_size, self.image_size, self.channels), np.uint8)
        watched = track(files, f"Reading {folder}", transient=True, disable=len(files) < MANY_IMAGES)
        for image, (path, _) in zip(images, watched, strict=True):
            image[...] = self._read_image(path)
        return images, np.array([label for _, label in files], np.int64)

    def _read_image(self, path: Path) -> np.ndarray:
        side = (self.image_size, self.image_size)
        try:
            with Image.open(path) as file:
                square = ImageOps.fit(file.convert(COLOURS[self.channels]), side, Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise UserError(f"{path} is not a readable image: {error}") from error
        return np.asarray(square).reshape(*side, self.channels)


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"data.root must hold train and test, each with one folder for each class; {folder} is missing")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
