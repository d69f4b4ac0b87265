"""Certificates for one radius, with no more samples than the answer needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xrobust.errors import UserError, at_least
from xrobust.smoothing.bounds import largest_lower_bound, lower_bound
from xrobust.smoothing.procedure import ABSTAIN, Procedure, SmoothedCertificate, certificate
from xrobust.smoothing.sequential import log_evidence_above, log_evidence_below
from xrobust.smoothing.votes import BLOCK

OPEN, CERTIFIED, REFUSED = range(3)


@dataclass(frozen=True, kw_only=True)
class CertifyAt(Procedure):
    """Is the radius above r? Looks at the counts again and again, and stops as soon as they answer.

    Certified when the evidence against p ≤ p_r reaches 2/α at any look (`log_evidence_above`), or when n samples are
    spent and their Clopper–Pearson bound at level α/2 exceeds p_r: together wrong with probability at most α, as in
    CERTIFY. Refused, which is always sound, when the evidence against p ≥ p_r reaches 1/α: a radius above r is given
    up by mistake with probability at most α. Certified images have radius r.

    Args:
        at: r ≥ 0.

    Raises:
        UserError: when asked about images for which n agreeing samples do not prove r.
    """

    at: float

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, at=self.at)

    def estimate(
        self, model: nn.Module, x: Tensor, selected: Tensor, streams: Sequence[torch.Generator]
    ) -> SmoothedCertificate:
        threshold = self.threshold(x[0].numel())
        votes, samples = (torch.zeros_like(selected) for _ in range(2))
        answers = torch.full_like(selected, OPEN)
        spent = 0
        for look in looks(self.n):
            rows = (answers == OPEN).nonzero().flatten()
            if not len(rows):
                break
            chosen = [streams[row] for row in rows.tolist()]
            votes[rows] += self.count(model, x[rows], look - spent, selected[rows], chosen)
            samples[rows] = spent = look
            found = decide(votes[rows].cpu().numpy(), look, threshold, self.alpha, last=look == self.n)
            answers[rows] = torch.from_numpy(found).to(x.device)
        prediction = torch.where(answers == CERTIFIED, selected, ABSTAIN)
        radius, probability = (torch.full_like(votes, value, dtype=torch.float64) for value in (self.at, threshold))
        return certificate(prediction, radius, probability, votes, samples)

    def threshold(self, dimension: int) -> float:
        """p_r, for images of d numbers.

        Raises:
            UserError: if n agreeing samples do not prove r.
        """
        threshold = self.noise.threshold(self.at, self.norm, dimension)
        most = largest_lower_bound(self.n, self.alpha / 2)
        if threshold >= most:
            reach = float(self.noise.radius(most, self.norm, dimension))
            raise UserError(
                f"{type(self).__name__}.at must be below {reach:.4g}, which is all that n={self.n} samples with "
                f"σ={self.noise.sigma:g} can prove, got {self.at:g}"
            )
        return threshold

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]}, sequential at {self.at:g})"


def looks(n: int) -> list[int]:
    """After how many samples to look: every block at first, then each time a quarter more, and after the last."""
    found, at = [], 0
    while at < n:
        at = min(n, at + max(1, at // (4 * BLOCK)) * BLOCK)
        found.append(at)
    return found


def decide(votes: ArrayLike, trials: int, threshold: float, alpha: float, *, last: bool) -> NDArray:
    """`OPEN`, `CERTIFIED` or `REFUSED` for counts (N,) after so many trials: (N,) int64.

    Args:
        votes: k for each image.
        trials: at this look, the same for all.
        threshold: p_r in (0, 1).
        alpha: the level.
        last: whether the samples are spent; nothing stays open then.
    """
    votes = np.asarray(votes)
    certified = log_evidence_above(votes, trials, threshold) >= math.log(2 / alpha)
    refused = log_evidence_below(votes, trials, threshold) >= math.log(1 / alpha)
    if last:
        certified |= lower_bound(votes, trials, alpha / 2) > threshold
        refused = ~certified
    return np.select([certified, refused], [CERTIFIED, REFUSED], OPEN).astype(np.int64)
