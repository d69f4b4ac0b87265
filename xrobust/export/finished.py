"""A finished model: the network, what is known of it, and real images to verify its exports on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.export.loading import file_sha256

PLACES = ("", "bundle", "checkpoints/best.ckpt")  # where the model is, from the path that a user names


@dataclass(frozen=True, eq=False, kw_only=True)
class FinishedModel:
    """What every format exports.

    Args:
        model: the network on the CPU, in eval mode: images in [0, 1] → logits.
        description: as in a bundle's config.json.
        weights: the file that the weights were read from.
        images: real images (n, C, H, W) in [0, 1], n ≥ 2; none of them goes into an export.

    Raises:
        UserError: if the network was built for images of another shape.
    """

    model: nn.Module
    description: dict[str, Any]
    weights: Path
    images: Tensor

    def __post_init__(self) -> None:
        architecture, (channels, size) = self.description["architecture"], self.images.shape[1:3]
        wanted = (architecture.get("in_channels", channels), architecture.get("image_size", size))
        if wanted != (channels, size):
            raise UserError(
                f"the data has images of {channels} channels and {size} pixels a side, "
                f"but the model is for {wanted[0]} channels and {wanted[1]} pixels"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    @property
    def blank(self) -> Tensor:
        """Two black images: what programs are traced with, because some keep the images that they were traced with."""
        return self.images.new_zeros(2, *self.shape)

    @property
    def facts(self) -> dict[str, Any]:
        """What a user of a program must know, in plain containers."""
        return {
            "images": f"float32 (N, {', '.join(map(str, self.shape))})",
            "pixel_range": [0, 1],
            "normalisation": "inside",
            "class_names": self.description["class_names"],
            "architecture": self.description["architecture"]["_target_"],
            "threat": self.description["threat"],
            "weights_sha256": file_sha256(self.weights),
        }


def find_model(run: str | Path) -> Path:
    """The bundle or the checkpoint that `run` means: itself, or the bundle or the best checkpoint of a run folder.

    Raises:
        UserError: if there is none.
    """
    for place in PLACES:
        found = Path(run) / place
        if found.is_file() or (found / "config.json").is_file():
            return found
    raise UserError(f"run={run} must be a bundle, a checkpoint, or a run folder with one of {', '.join(PLACES[1:])}")


def named(description: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """A description with these class names if it has none, as that of a checkpoint."""
    return {**description, "class_names": description["class_names"] or list(class_names)}
