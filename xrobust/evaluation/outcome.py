"""What became of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.sample_arrays import SampleArrays

STANDING, MISCLASSIFIED = -1, 0  # in `broken_by`; a larger k is the k-th member of the attack


@dataclass(frozen=True, eq=False)
class Outcomes(SampleArrays):
    """The fate of N samples on R rungs, the rungs of all ladders one after the other.

    Attributes:
        label, clean_prediction: (N,).
        broken_by: `STANDING`, `MISCLASSIFIED` (wrong without an attack) or k ≥ 1, the member that broke it, (N, R).
        prediction: of a forward pass of its own on the adversarial example, (N, R).
        distance: of the adversarial example, in the norm of the threat model, (N, R).
        seconds: spent by each member on each rung, (R, M); zero where a ladder has fewer than M members.
        shown: positions in the data set of a few samples, with their images and adversarial examples of each ladder's
            own threat model: (k,), (k, C, H, W), (k, ladders, C, H, W).
    """

    label: NDArray
    clean_prediction: NDArray
    broken_by: NDArray
    prediction: NDArray
    distance: NDArray
    seconds: NDArray
    shown: NDArray
    images: NDArray
    adversarial_images: NDArray

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The outcomes of several batches, in the order of the data set."""
        whole = {name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()}
        whole["seconds"] = np.sum([part.seconds for part in parts], axis=0)
        order, shown_order = np.argsort(whole["index"]), np.argsort(whole["shown"])
        for name in ("index", "label", "clean_prediction", "broken_by", "prediction", "distance"):
            whole[name] = whole[name][order]
        for name in ("shown", "images", "adversarial_images"):
            whole[name] = whole[name][shown_order]
        return cls(**whole)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The ladders, the seed, and what became of each sample."""

    ladders: tuple[Ladder, ...]
    seed: int
    outcomes: Outcomes

    @property
    def clean(self) -> NDArray:
        """Whether each sample is right without an attack: (N,) bool."""
        return self.outcomes.clean_prediction == self.outcomes.label

    def first_rung(self, ladder: int) -> int:
        """Where the rungs of a ladder begin in the arrays of the outcomes."""
        return sum(len(self.ladders[i].rungs) for i in range(ladder))

    def standing(self, ladder: int, rung: int | None = None) -> NDArray:
        """Whether each sample withstands a ladder at a rung, by default that of its threat model: (N,) bool."""
        place = self.first_rung(ladder) + (self.ladders[ladder].own if rung is None else rung)
        return self.outcomes.broken_by[:, place] == STANDING

    @property
    def union(self) -> NDArray:
        """Whether each sample withstands every threat model: (N,) bool."""
        return np.all([self.standing(i) for i in range(len(self.ladders))], axis=0)
