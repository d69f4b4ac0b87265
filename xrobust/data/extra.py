"""Further training images, such as those that a generative model made."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from xrobust.data.arrays import arrays_in, make_tensors
from xrobust.errors import UserError

NAMES = (("x_train", "y_train"), ("image", "label"))  # ours, and those of the published sets (Gowal et al. 2021)


def read_extra(path: Path, *, channels: int, image_size: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images and (pseudo-)labels of an .npz file, under the names x_train and y_train or image and label.

    Returns:
        (M, C, H, W) uint8 and (M,) int64; `make_arrays` states the forms that the file may have.

    Raises:
        UserError: if the file is missing, unreadable or incomplete, or does not fit the set that it shall extend.
    """
    found = arrays_in(path, [name for names in NAMES for name in names])
    names = next((names for names in NAMES if found.keys() >= set(names)), None)
    if names is None:
        allowed = " or ".join(" and ".join(names) for names in NAMES)
        raise UserError(f"data.extra={path} must hold {allowed}")
    images, labels = make_tensors(f"data.extra={path}", names, channels, *(found[name] for name in names))
    if images.shape[2:] != (image_size, image_size):
        raise UserError(
            f"data.extra={path} has images of {' × '.join(map(str, images.shape[2:]))} pixels, "
            f"but data.image_size={image_size}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"data.extra={path} has labels from {int(labels.min())} to {int(labels.max())}, "
            f"but data.num_classes={num_classes}"
        )
    return images, labels
