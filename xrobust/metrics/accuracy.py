"""The share of correct samples and how sure one can be of it."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import torch
from torch import Tensor
from torchmetrics import Metric

from xrobust.errors import UserError


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927).

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n), with p = correct/n and z the normal quantile of
    (1 + confidence)/2. Within [0, 1], also for shares of 0 and 1; (0, 1) for no samples.

    Raises:
        UserError: unless 0 ≤ correct ≤ total and 0 < confidence < 1.
    """
    if not 0 <= correct <= total:
        raise UserError(f"correct must be in [0, {total}], the number of samples, got {correct}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be between 0 and 1, got {confidence}")
    if total == 0:
        return 0.0, 1.0
    share, z2 = correct / total, NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = share + z2 / (2 * total)
    half = sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total * total)))
    scale = 1 + z2 / total
    # At shares of 0 and 1 one end is the share itself, up to rounding.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


class Accuracy(Metric):
    """correct / total; clean, under attack or certified, depending on what counts as correct."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, correct: Tensor) -> None:
        """Add a batch: (N,) bool, whether each sample is correct."""
        if correct.dtype != torch.bool or correct.dim() != 1:
            raise UserError(f"correct must be bool of shape (N,), got {correct.dtype} of shape {tuple(correct.shape)}")
        # Out of place: a state that was reset in inference mode cannot be changed in place outside it.
        self.correct = self.correct + correct.sum()
        self.total = self.total + len(correct)

    def compute(self) -> Tensor:
        """The accuracy over all processes, in [0, 1]; NaN without samples."""
        return self.correct / self.total

    def counts(self) -> tuple[int, int]:
        """(correct, total) over all processes; like `compute`, a collective call."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return int(self.correct), int(self.total)
