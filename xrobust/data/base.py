"""The data module: splits, loaders and probe images for a set of images held in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from xrobust.data.arrays import Arrays
from xrobust.data.augment import Augmentation
from xrobust.data.extra import read_extra
from xrobust.data.loader import EvaluationLoader, TrainingLoader, to_unit
from xrobust.data.mix import Mix
from xrobust.data.split import balanced_choice, stratified_split
from xrobust.digest import sha256
from xrobust.errors import UserError, at_least, at_most


@dataclass(kw_only=True, eq=False)
class ImageDataModule(pl.LightningDataModule):
    """Serves (image in [0, 1], label); a subclass says one thing, how to `load` the arrays.

    A seeded, stratified validation set is split off the training set: nothing is selected on the test set.

    Args:
        num_classes: K, checked against the labels.
        channels: C, checked against the images.
        image_size: H = W, checked against the images.
        mean, std: normalisation of each channel, or None for raw pixels; it is the model that applies it.
        class_names: K names; None takes the source's own, or else "0" ... "K − 1".
        batch_size: training images in a batch, for each process.
        eval_batch_size: the same in validation and test.
        validation_fraction: share of the training set that is held out, in (0, 1).
        split_seed: which images are held out.
        seed: order of the training images and their augmentation.
        crop_padding, crop_mode, flip, cutout: see `Augmentation`.
        mix: by name, what happens to training batches, such as `CutMix`; their labels become class probabilities.
        extra: an .npz file with further training images, see `read_extra`; none are held out for validation.
        extra_fraction: their share of each training batch, in [0, 1].
        ground_truth: images (N, C, H, W) → the pixels that matter (N, H, W) bool, such as `Foreground`; goes before
            what the set itself knows. It serves the metrics of localisation.

    Raises:
        UserError: for a value out of its range, at once; for one that the arrays contradict, in `setup`.
    """

    num_classes: int
    channels: int
    image_size: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] | None = None
    batch_size: int = 128
    eval_batch_size: int = 256
    validation_fraction: float = 0.1
    split_seed: int = 0
    seed: int = 0
    crop_padding: int = 0
    crop_mode: str = "zeros"
    flip: bool = False
    cutout: int = 0
    mix: Mapping[str, Mix] | None = None
    extra: str | None = None
    extra_fraction: float = 0.7
    ground_truth: Callable[[Tensor], Tensor] | None = None
    _parts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)
    _masks: dict[str, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        at_least("data", 2, num_classes=self.num_classes)
        at_least(
            "data",
            1,
            channels=self.channels,
            image_size=self.image_size,
            batch_size=self.batch_size,
            eval_batch_size=self.eval_batch_size,
        )
        at_least("data", 0, split_seed=self.split_seed, seed=self.seed)
        at_most("data", 2**32 - 1, split_seed=self.split_seed, seed=self.seed)
        if not isinstance(self.validation_fraction, int | float) or not 0 < self.validation_fraction < 1:
            raise UserError(
                f"data.validation_fraction={self.validation_fraction!r} must be above 0 and below 1: "
                "the best checkpoint is selected on held-out training images"
            )
        for name, values, length in (
            ("mean", self.mean, self.channels),
            ("std", self.std, self.channels),
            ("class_names", self.class_names, self.num_classes),
        ):
            if values is not None and len(values) != length:
                raise UserError(f"data.{name}={list(values)} must have {length} entries")
        self.augmentation = Augmentation(self.crop_padding, self.crop_mode, self.flip, self.cutout)
        for name, pixels in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if pixels >= self.image_size:
                raise UserError(f"data.{name}={pixels} must be below data.image_size={self.image_size}")
        at_least("data", 0.0, extra_fraction=self.extra_fraction)
        at_most("data", 1, extra_fraction=self.extra_fraction)

    @abstractmethod
    def load(self) -> Arrays:
        """Read the whole set."""

    def setup(self, stage: str | None = None) -> None:
        """Load, check and split the set, once; may be called early, to find mistakes before training."""
        if self._parts:
            return
        arrays = self.load()
        self._check(arrays)
        rest, held = stratified_split(arrays.y_train, self.validation_fraction, self.split_seed)
        if not len(rest) or not len(held):
            raise UserError(
                f"data.validation_fraction={self.validation_fraction} of {len(arrays.y_train)} images "
                f"leaves {len(rest)} for training and {len(held)} for validation"
            )
        self.class_names = list(self.class_names or arrays.class_names or map(str, range(self.num_classes)))
        known = arrays.mask_train
        self._masks = {"validation": None if known is None else known[held], "test": arrays.mask_test}
        self._parts = {
            "train": (arrays.x_train[rest], arrays.y_train[rest]),
            "validation": (arrays.x_train[held], arrays.y_train[held]),
            "test": (arrays.x_test, arrays.y_test),
        }
        if self.extra is not None:
            facts = {"channels": self.channels, "image_size": self.image_size, "num_classes": self.num_classes}
            self._parts["extra"] = read_extra(Path(self.extra), **facts)

    def train_dataloader(self) -> TrainingLoader:
        return TrainingLoader(
            *self._part("train"),
            batch_size=self.batch_size,
            augmentation=self.augmentation,
            extra=self._parts.get("extra"),
            extra_fraction=self.extra_fraction,
            mixes=list((self.mix or {}).values()),
            num_classes=self.num_classes,
            seed=self.seed,
            reshuffle=not getattr(self.trainer, "overfit_batches", 0),
            **self._placement(),
        )

    def val_dataloader(self) -> EvaluationLoader:
        return EvaluationLoader(*self._part("validation"), batch_size=self.eval_batch_size, **self._placement())

    def test_dataloader(self) -> EvaluationLoader:
        return EvaluationLoader(*self._part("test"), batch_size=self.eval_batch_size, **self._placement())

    def probe_set(self, n: int, seed: int = 0, split: str = "validation") -> tuple[Tensor, Tensor, Tensor]:
        """Fixed images of the "validation" or "test" set, balanced over the classes as far as each class has images.

        Returns:
            x (n, C, H, W) float32 in [0, 1], y (n,), and their positions (n,) in that set.
            The first m of them are `probe_set(m)`.

        Raises:
            UserError: if n is not between 1 and the size of the set.
        """
        images, labels = self._part(split)
        if not 1 <= n <= len(labels):
            raise UserError(f"a probe set must have between 1 and {len(labels)} images (the {split} set), got {n}")
        index = balanced_choice(labels, n, seed)
        return to_unit(images[index]), labels[index], index

    def probe_masks(self, n: int, seed: int = 0, split: str = "validation") -> Tensor | None:
        """The pixels that are known to matter in each image of `probe_set(n, seed, split)`.

        Returns:
            (n, H, W) bool, or None if neither `ground_truth` nor the set itself says which they are.
        """
        x, _, index = self.probe_set(n, seed, split)
        if self.ground_truth is not None:
            return self.ground_truth(x)
        known = self._masks[split]
        return None if known is None else known[index]

    def summary(self) -> dict[str, int]:
        """The sizes: images in each part, classes, channels, image size."""
        sizes = {part: len(self._part(part)[1]) for part in ("train", "validation", "test")}
        return {
            **sizes,
            "classes": self.num_classes,
            "channels": self.channels,
            "image_size": self.image_size,
        }

    def version(self) -> str:
        """SHA-256 of all images and labels as they are split: what a result was measured on."""
        self.setup()
        return sha256((f"{name} {i}", part) for name, pair in self._parts.items() for i, part in enumerate(pair))

    def identity(self, split: str) -> str:
        """The data set and the first digits of the SHA-256 of a part: "MNIST 1f3a5c7e"."""
        images, labels = self._part(split)
        name = getattr(self, "dataset", None) or type(self).__name__
        return f"{name} {sha256([('images', images), ('labels', labels)])[:8]}"

    def _part(self, name: str) -> tuple[Tensor, Tensor]:
        self.setup()
        return self._parts[name]

    def _placement(self) -> dict:
        """Where this process's batches belong: on the trainer's device and to its rank, or on the CPU."""
        if self.trainer is None:
            return {}
        return {
            "device": self.trainer.strategy.root_device,
            "rank": self.trainer.global_rank,
            "world_size": self.trainer.world_size,
        }

    def _check(self, arrays: Arrays) -> None:
        name = type(self).__name__
        for images in (arrays.x_train, arrays.x_test):
            if tuple(images.shape[1:]) != (self.channels, self.image_size, self.image_size):
                raise UserError(
                    f"data.channels={self.channels} and data.image_size={self.image_size} do not fit "
                    f"the images of {name}, which have shape {tuple(images.shape[1:])}"
                )
        for labels in (arrays.y_train, arrays.y_test):
            if labels.min() < 0 or labels.max() >= self.num_classes:
                raise UserError(
                    f"data.num_classes={self.num_classes} allows labels 0 ... {self.num_classes - 1}, "
                    f"but those of {name} go from {int(labels.min())} to {int(labels.max())}"
                )
        present = len(arrays.y_train.unique())
        if present != self.num_classes:
            raise UserError(f"data.num_classes={self.num_classes}, but {name} has training images of {present} classes")
