"""Images and labels in memory: the value that every data source loads, and its .npz form."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from xrobust.errors import UserError

KEYS = ("x_train", "y_train", "x_test", "y_test")
Part = tuple[np.ndarray, np.ndarray]  # images, labels


@dataclass(frozen=True, eq=False)
class Arrays:
    """Training and test images (N, C, H, W) uint8, their labels (N,) int64, and the class names if known.

    A set that knows by construction which pixels decide the label says so in its masks, (N, H, W) bool.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...] | None = None
    mask_train: Tensor | None = None
    mask_test: Tensor | None = None


def make_arrays(
    source: str, channels: int, train: Part, test: Part, class_names: tuple[str, ...] | None = None
) -> Arrays:
    """Bring numpy arrays into one form.

    Args:
        source: what error messages call the origin.
        channels: C, which tells (N, H, W, C) from (N, C, H, W).
        train, test: images, uint8 of shape (N, H, W) if C is 1, (N, H, W, C) or (N, C, H, W), and labels, of
            any integer type and shape (N,).
        class_names: if the source has them.

    Raises:
        UserError: for another type or shape, an empty set, or numbers of images and labels that differ.
    """
    x_train, y_train = make_tensors(source, ("x_train", "y_train"), channels, *train)
    x_test, y_test = make_tensors(source, ("x_test", "y_test"), channels, *test)
    return Arrays(x_train, y_train, x_test, y_test, class_names)


def read_npz(path: Path, channels: int) -> Arrays:
    """Read a file made by `numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)`; see `make_arrays`.

    Raises:
        UserError: if the file is missing, unreadable or incomplete, or its arrays are not of the form.
    """
    arrays = arrays_in(path, KEYS)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it must hold {', '.join(KEYS)}")
    train, test = (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    return make_arrays(str(path), channels, train, test)


def arrays_in(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that an .npz file holds.

    Raises:
        UserError: if the file is missing or unreadable.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in keys if key in file}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError, TypeError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a readable .npz file: {error}") from error


def make_tensors(
    source: str, names: tuple[str, str], channels: int, images: np.ndarray, labels: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Images and labels in the form that `make_arrays` states; `names` is what error messages call the two.

    Raises:
        UserError: as `make_arrays`.
    """
    x, y = _images(images, channels, f"{source}: {names[0]}"), _labels(labels, f"{source}: {names[1]}")
    if len(x) != len(y):
        raise UserError(f"{source}: {names[0]} has {len(x)} images but {names[1]} has {len(y)} labels")
    if not len(x):
        raise UserError(f"{source}: {names[0]} has no images")
    return x, y


def _images(images: np.ndarray, channels: int, place: str) -> Tensor:
    if images.dtype != np.uint8:
        raise UserError(
            f"{place} must be uint8 in 0 ... 255, got {images.dtype}; store images in [0, 1] as round(255·x)"
        )
    if images.ndim == 3 and channels == 1:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] == channels:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] != channels:
        raise UserError(f"{place} has shape {images.shape}, which does not fit data.channels={channels}")
    return torch.from_numpy(np.ascontiguousarray(images))


def _labels(labels: np.ndarray, place: str) -> Tensor:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{place} must be integers of shape (N,), got {labels.dtype} of shape {labels.shape}")
    return torch.from_numpy(labels.astype(np.int64))
