"""Batches made where the model computes: no worker processes, no work for each image in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from xrobust.data.augment import Augmentation
from xrobust.errors import UserError
from xrobust.randomness import mix

Batch = tuple[Tensor, Tensor]


class TensorLoader(ABC):
    """An iterable of batches (x, y): float32 images (N, C, H, W) in [0, 1] and int64 labels (N,).

    The images move to `device` with the first batch and stay uint8; batches are gathered and converted there.

    Args:
        images: (M, C, H, W) uint8.
        labels: (M,) int64.
        batch_size: images in a batch, for each process.
        device: where the batches are made.
        rank, world_size: which of how many processes this is.

    Raises:
        UserError: if there are fewer images than processes.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ):
        share = len(images) // world_size
        if share < 1:
            raise UserError(f"{len(images)} images are too few for {world_size} processes")
        self.images = images
        self.labels = labels
        self.batch_size = min(batch_size, share)  # so that every process has a batch
        self.device = torch.device(device)
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches of this process."""

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def _move(self) -> None:
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels 0 ... 255 → float32 in [0, 1]."""
    return images.float().div_(255)


class EvaluationLoader(TensorLoader):
    """Every image once, in a fixed order, without augmentation.

    Batch b of the whole set belongs to process b mod world_size: nothing is padded or repeated, so together
    the processes see each image exactly once. Their numbers of batches may differ by one.
    """

    def __len__(self) -> int:
        batches = -(-len(self.images) // self.batch_size)
        return -(-(batches - self.rank) // self.world_size)

    def first_index(self, batch_idx: int) -> int:
        """Where in the set this process's batch `batch_idx` begins; its images follow one another."""
        return (batch_idx * self.world_size + self.rank) * self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        self._move()
        for batch_idx in range(len(self)):
            start = self.first_index(batch_idx)
            chosen = slice(start, start + self.batch_size)
            yield to_unit(self.images[chosen]), self.labels[chosen]


class TrainingLoader(TensorLoader):
    """Shuffled, augmented batches of equal size; all randomness is a function of (seed, epoch).

    Each epoch draws one permutation of the set and one augmentation for each image, on the CPU, so that every
    device and process sees the same. The processes take disjoint shares of equal size; images that fill no
    batch wait for another epoch. Lightning announces the epoch through `sampler.set_epoch` and keeps the
    `state_dict` in checkpoints: a resumed run goes on with the batches that were due, also within an epoch.

    Args:
        augmentation: what happens to the images.
        seed: of the permutations and augmentations.
        reshuffle: False repeats the batches of epoch 0 (for overfitting on a few of them).
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        reshuffle: bool = True,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ):
        super().__init__(images, labels, batch_size=batch_size, device=device, rank=rank, world_size=world_size)
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.epoch = 0
        self._served = 0  # batches given out in this epoch
        self._start = 0  # where the next iteration begins; above 0 only after resuming
        self.reshuffle = reshuffle

    @property
    def sampler(self) -> TrainingLoader:
        """The object with `set_epoch`, where Lightning looks for it."""
        return self

    def __len__(self) -> int:
        return len(self.images) // self.world_size // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation and augmentations of the next iteration."""
        if epoch != self.epoch:
            self.epoch, self._served, self._start = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "served": self._served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self._served = self._start = state["served"]

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so nothing is read before the first batch is asked for: by then the epoch is known.
        self._move()
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch if self.reshuffle else 0))
        count = len(self.images)
        mine = torch.randperm(count, generator=generator)[self.rank :: self.world_size]
        draws = self.augmentation.draw(count, generator)[mine].to(self.device)
        mine = mine.to(self.device)
        start, self._start = self._start, 0
        for batch_idx in range(start, len(self)):
            self._served = batch_idx + 1
            chosen = slice(batch_idx * self.batch_size, (batch_idx + 1) * self.batch_size)
            images = self.images[mine[chosen]]
            yield to_unit(self.augmentation.apply(images, draws[chosen])), self.labels[mine[chosen]]
