"""What the checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.attacks.standing import fresh_predictions
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, samples that it gets right, and the attack that the checks compare with.

    Attributes:
        model: as it was handed over, in whatever mode.
        x, y, index: samples that the model gets right (N, C, H, W), their labels and positions in the data set (N,).
        white_box: an iterative attack along gradients, of any radius; its threat model is the one in question.
        standing: which samples withstood the evaluation, (N,) bool; by default those that withstand `white_box`.
        surrogate: another model for the same task, without a defence.
        seed: of the random streams.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    index: Tensor
    white_box: Attack
    standing: Tensor | None = None
    surrogate: nn.Module | None = None
    seed: int = 0

    @property
    def threat(self) -> ThreatModel:
        """The threat model in question."""
        return self.white_box.threat

    @cached_property
    def x_adv(self) -> Tensor:
        """What the white-box attack makes of the samples; computed once for all checks."""
        return self.white_box(self.model, self.x, self.y, generator=self.streams())

    @cached_property
    def broken(self) -> Tensor:
        """Which samples the white-box attack breaks: (N,) bool."""
        return fresh_predictions(self.model, self.x_adv) != self.y

    @property
    def withstood(self) -> Tensor:
        """Positions of the samples that the evaluation takes for robust."""
        return (~self.broken if self.standing is None else self.standing).nonzero().flatten()

    def streams(self, rows: Tensor | None = None) -> SampleStreams:
        """Random streams of the samples, or of some of them."""
        return SampleStreams(self.seed, (self.index if rows is None else self.index[rows.cpu()]).tolist())

    def falls_to(self, attack: Attack, rows: Tensor | None = None) -> Tensor:
        """Which samples, by default all, the model gets wrong when it is asked again after an attack: bool."""
        x, y = (self.x, self.y) if rows is None else (self.x[rows], self.y[rows])
        if not len(x):
            return torch.zeros(0, dtype=torch.bool, device=x.device)
        x_adv = attack(self.model, x, y, generator=self.streams(rows))
        return fresh_predictions(self.model, x_adv) != y

    @staticmethod
    def of(
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        white_box: Attack,
        *,
        count: int = 200,
        surrogate: nn.Module | None = None,
        seed: int = 0,
    ) -> Subject:
        """At most `count` of the samples that the model gets right, spread evenly over the set."""
        right = (fresh_predictions(model, x) == y).nonzero().flatten().cpu()
        rows = right[spread(len(right), count)]
        return Subject(model, x[rows], y[rows], rows, white_box, surrogate=surrogate, seed=seed)


def spread(total: int, count: int) -> Tensor:
    """`count` positions, evenly spaced in 0 … total − 1; all of them if there are not more."""
    return torch.linspace(0, total - 1, count).round().long() if total > count else torch.arange(total)
