"""What methods share that train classifiers for randomized smoothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.base import RobustClassifier, at_least_float32
from xrobust.errors import UserError, at_least
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import SampleStreams, normal_like
from xrobust.smoothing import noisy_logits


class SmoothedTraining(RobustClassifier):
    """Losses on m noisy copies x + δ_k of each image, δ_k ~ N(0, σ²I), not clipped to [0, 1].

    Logs `val/noisy_accuracy`, the accuracy under one fixed draw of noise for each validation image, by which the best
    epoch is chosen: what the smoothed classifier needs, while clean accuracy says little of it.

    Args:
        sigma: σ > 0, in units of the pixel range; certify with the same.
        copies: m ≥ 1.
    """

    selection = "val/noisy_accuracy"

    def __init__(self, *, sigma: float, copies: int = 1, **base: Any):
        super().__init__(**base)
        at_least("defense", 1, copies=copies)
        if not isinstance(sigma, int | float) or isinstance(sigma, bool) or not sigma > 0:
            raise UserError(f"defense.sigma must be above 0, got {sigma!r}")
        self.sigma, self.copies = sigma, copies
        self.noisy_accuracy = Accuracy()

    def noise(self, x: Tensor) -> Tensor:
        """m draws for each image: (N, C, H, W) → (m, N, C, H, W)."""
        like = x.new_empty(self.copies, *x.shape)
        return self.sigma * normal_like(like, self.generator).to(x.dtype)

    def logits_under(self, x: Tensor, noise: Tensor) -> Tensor:
        """f(x + δ_k), in one pass and in float32 at least: (m, N, K)."""
        return at_least_float32(noisy_logits(self.model, x, noise))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        x, y = batch
        first = self.trainer.val_dataloaders.first_index(batch_idx)  # type: ignore[union-attr]
        noise = self.sigma * normal_like(x, SampleStreams(self._seed, range(first, first + len(x))))
        self.noisy_accuracy.update(self.predict(x + noise) == y)
        self.log("val/noisy_accuracy", self.noisy_accuracy, prog_bar=True)


def copied(y: Tensor, copies: int) -> Tensor:
    """The labels of m copies of a batch, one copy after the other: (N, …) → (mN, …)."""
    return y.repeat(copies, *[1] * (y.dim() - 1))
