"""The base of every explanation metric: one value a sample, streamed into the mean of the defined ones."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from xrobust.metrics.probe import Probe

Group = Literal[
    "axioms",
    "faithfulness",
    "randomisation",
    "stability",
    "certified",
    "localisation",
    "complexity",
    "smoothness",
    "alignment",
    "settings",
]
GROUPS: tuple[str, ...] = get_args(Group)
# The question on the checklist of `xrobust.explanation` that a group answers.
POINTS = {
    "axioms": 1,
    "faithfulness": 2,
    "randomisation": 3,
    "stability": 4,
    "certified": 5,
    "localisation": 7,
    "complexity": 8,
    "smoothness": 8,
    "settings": 9,
    "alignment": 12,
}


class ExplanationMetric(Metric):
    """The mean of a per-sample quantity over the samples for which it is defined.

    A subclass says `higher_is_better`, `group` and `cost`, and writes `per_sample`. A value that is not
    finite is undefined: it is left out of the mean and lowers `valid_share`, so that no failure goes
    unnoticed. States are sums, in float64 and int64; processes are merged by adding them.

    Class attributes:
        higher_is_better: the direction.
        group: one of `GROUPS`, the first part of the log key.
        cost: "cheap" (at most one pass beyond what is shared), "moderate" or "expensive" (tens).
        uses_attribution: false if the value depends on the model alone, so that one attribution method
            suffices.
        needs: the optional parts of the probe that it asks for: "attack", "map_attack", "mask", "pool".
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better: bool
    group: ClassVar[Group]
    cost: ClassVar[Literal["cheap", "moderate", "expensive"]]
    uses_attribution: ClassVar[bool] = True
    needs: frozenset[str] = frozenset()

    value_sum: Tensor
    valid: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("valid", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def point(self) -> int:
        """The number of the question on the checklist that it answers."""
        return POINTS[self.group]

    def lacks(self, probe: Probe) -> str | None:
        """What else the metric needs of the model or the threat model and does not get, in words; none if it has all.

        Asked before time is spent on a run.
        """
        return None

    @abstractmethod
    def per_sample(self, probe: Probe) -> Tensor:
        """(N,), NaN where the quantity is undefined; nothing in the probe is changed."""

    def update(self, probe: Probe) -> None:
        """Add a batch; a process may have none of its images."""
        values = self.per_sample(probe).double() if len(probe) else torch.empty(0, dtype=torch.float64)
        defined = values.isfinite()
        # Out of place: a state that was reset in inference mode cannot be changed in place outside it.
        self.value_sum = self.value_sum + values.where(defined, 0).sum()
        self.valid = self.valid + defined.sum()
        self.total = self.total + len(values)

    def compute(self) -> Tensor:
        """The mean over the defined samples of all processes; NaN if there are none."""
        return self.value_sum / self.valid

    def valid_share(self) -> Tensor:
        """The share of all processes' samples whose value is defined; like `compute`, a collective call."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self.valid / self.total
