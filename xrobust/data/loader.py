"""Batches made where the model computes: no worker processes, no work for each image in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.data.augment import Augmentation
from xrobust.data.mix import Mix
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

    With extra images, an epoch has as many batches as without them, and a fixed share of each batch is extra (Gowal et
    al. 2021); it goes through either set in a random order, more than once if the set is too small for an epoch.

    Args:
        augmentation: what happens to the images.
        extra: further images (M, C, H, W) uint8 and labels (M,).
        extra_fraction: their share of each batch, rounded to whole images.
        mixes: what happens to the batches then; labels become class probabilities (N, K).
        num_classes: K; needed for mixes only.
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
        extra: Batch | None = None,
        extra_fraction: float = 0.0,
        mixes: Sequence[Mix] = (),
        num_classes: int = 0,
        seed: int = 0,
        reshuffle: bool = True,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ):
        super().__init__(images, labels, batch_size=batch_size, device=device, rank=rank, world_size=world_size)
        self.augmentation = augmentation or Augmentation()
        self.extra = extra
        self.extra_count = 0 if extra is None else round(extra_fraction * self.batch_size)
        self.mixes = mixes
        self.num_classes = num_classes
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
        epoch = self.epoch if self.reshuffle else 0
        own = self._deal(self.images, self.labels, self.batch_size - self.extra_count, mix(self.seed, epoch))
        sources = [own]
        if self.extra is not None and self.extra_count:
            sources.append(self._deal(*self.extra, self.extra_count, mix(self.seed, epoch, 1)))
        start, self._start = self._start, 0
        for batch_idx in range(start, len(self)):
            self._served = batch_idx + 1
            images, labels = zip(*(source(batch_idx) for source in sources), strict=True)
            batch = to_unit(torch.cat(images)), torch.cat(labels)
            yield self._mixed(*batch, mix(self.seed, epoch, 2, self.rank, batch_idx)) if self.mixes else batch

    def _move(self) -> None:
        super()._move()
        if self.extra is not None:
            self.extra = self.extra[0].to(self.device), self.extra[1].to(self.device)

    def _deal(self, images: Tensor, labels: Tensor, per_batch: int, seed: int) -> Callable[[int], Batch]:
        """One epoch of a set: the number of a batch → its augmented images, uint8, and their labels."""
        generator = torch.Generator().manual_seed(seed)
        count = len(images)
        rounds = max(1, -(-self.world_size * len(self) * per_batch // count))
        order = torch.cat([turn * count + torch.randperm(count, generator=generator) for turn in range(rounds)])
        mine = order[self.rank :: self.world_size]
        draws = self.augmentation.draw(rounds * count, generator)[mine].to(self.device)
        mine = (mine % count).to(self.device)

        def batch(batch_idx: int) -> Batch:
            chosen = slice(batch_idx * per_batch, (batch_idx + 1) * per_batch)
            return self.augmentation.apply(images[mine[chosen]], draws[chosen]), labels[mine[chosen]]

        return batch

    def _mixed(self, x: Tensor, y: Tensor, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        y = F.one_hot(y, self.num_classes).to(x.dtype)
        for step in self.mixes:
            x, y = step(x, y, generator)
        return x, y
