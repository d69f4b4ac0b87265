"""What a comparison of runs holds, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xrobust.report.history import Row
from xrobust.report.run import ARROWS

MINIMUM = 4  # pairs, for a rank correlation


@dataclass(frozen=True)
class ComparedRun:
    """A run with its final values.

    Args:
        name: of its folder, or of the row in the table that it comes from.
        group: of which it is a member.
        seed: of its training.
        place: where it was read.
        epoch: whose weights are in the bundle, where the run's history tells.
        radius: of its training, as a number; none for training without one.
        values: by quantity, what the finished run reached.
        history: accuracies and explanation metrics, epoch by epoch.
    """

    name: str
    group: str
    seed: str
    place: str
    epoch: float | None
    radius: float | None
    values: Mapping[str, float]
    history: Sequence[Row]


@dataclass(frozen=True)
class Mean:
    """The mean of a quantity over the runs of a group with its 95% interval, which one run alone does not have."""

    group: str
    quantity: str
    runs: int
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ of robust accuracy and a metric, with a bootstrap interval; none where it is undefined.

    Args:
        over: what the pairs are: "all runs", "runs of a group" or "epochs of a run".
        where: the group or the run; empty for all runs.
        accuracy: which robust accuracy.
        metric: the other quantity.
        rho: Spearman's ρ.
        interval: 95%, from resampled pairs.
        pairs: how many.
        one_protocol: whether the metric was measured in one way in all of them.
    """

    over: str
    where: str
    accuracy: str
    metric: str
    rho: float | None
    interval: tuple[float, float] | None
    pairs: int
    one_protocol: bool


@dataclass(frozen=True)
class Protocol:
    """How some quantities of some groups were measured."""

    quantities: tuple[str, ...]
    groups: tuple[str, ...]
    text: str
    images: int | None
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Finished runs in groups.

    Args:
        runs: group by group.
        means: of each quantity in each group.
        correlations: of robust accuracy and each explanation metric.
        directions: by quantity, whether higher is better; none if that is not known.
        protocols: how everything was measured.
        warnings: what to mind.
        left_out: run → why it is not compared.
    """

    runs: Sequence[ComparedRun]
    means: Sequence[Mean]
    correlations: Sequence[Correlation]
    directions: Mapping[str, bool | None]
    protocols: Sequence[Protocol]
    warnings: Sequence[str]
    left_out: Mapping[str, str]

    @property
    def groups(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(run.group for run in self.runs))

    @property
    def quantities(self) -> list[str]:
        """Accuracies first, then explanation metrics."""
        return list(dict.fromkeys(mean.quantity for mean in self.means))

    @property
    def accuracy(self) -> str | None:
        """The robust accuracy of the finished runs: of the test if any run has it, else of the validation."""
        there = [name for name in ("test/robust_accuracy", "val/robust_accuracy") if name in self.quantities]
        return there[0] if there else None

    def members(self, group: str) -> list[ComparedRun]:
        """The runs of a group."""
        return [run for run in self.runs if run.group == group]


def is_metric(quantity: str) -> bool:
    """Whether it says how good explanations are."""
    return quantity.startswith("explain/")


def label(quantity: str, directions: Mapping[str, bool | None]) -> str:
    """A quantity for people: "gini_index ↑ gradient", "test/robust_accuracy ↑"."""
    arrow = ARROWS[directions.get(quantity)]
    if not is_metric(quantity):
        return f"{quantity} {arrow}".strip()
    _, _, metric, *attribution = quantity.split("/")
    return " ".join(filter(None, [metric, arrow, *attribution]))


def number(value: float, quantity: str) -> str:
    """Metrics to three digits, accuracies in per cent."""
    return f"{value:.3g}" if is_metric(quantity) else f"{value:.1%}"


def in_words(found: Correlation) -> str:
    """What a correlation says: "rises with robust accuracy", or why it says nothing."""
    return _relation(found) + ("" if found.one_protocol else " (measured in different ways)")


def _relation(found: Correlation) -> str:
    if found.rho is None:
        few = f"fewer than {MINIMUM} pairs" if found.pairs < MINIMUM else "one of the two is constant"
        return f"undefined: {few}"
    if found.interval is None:
        return "no interval: too many resamples are constant"
    low, high = found.interval
    if low > 0:
        return "rises with robust accuracy"
    return "falls with robust accuracy" if high < 0 else "no clear relation: the interval holds 0"
