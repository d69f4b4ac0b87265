"""One metric of one attribution on a set of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Measurement:
    """The values of a metric, image by image.

    Args:
        metric: its name in the configuration.
        attribution: the name of the method, or None for a metric of the model alone.
        group: of the metric, as in "stability".
        point: the number of the question on the checklist that it answers.
        higher_is_better: its direction.
        values: (N,) float64, NaN where undefined.
        seconds: what it cost; what several metrics share is paid by the first of them.
    """

    metric: str
    attribution: str | None
    group: str
    point: int
    higher_is_better: bool
    values: NDArray[np.float64]
    seconds: float

    @property
    def key(self) -> str:
        """As in "stability/topk_attacked/gradient"."""
        return "/".join(filter(None, (self.group, self.metric, self.attribution)))

    @property
    def defined(self) -> NDArray[np.float64]:
        """The values that are finite."""
        return self.values[np.isfinite(self.values)]

    @property
    def mean(self) -> float:
        """Over the defined values; NaN if there are none."""
        return float(self.defined.mean()) if len(self.defined) else float("nan")

    @property
    def standard_error(self) -> float:
        """Of the mean; NaN for fewer than two defined values."""
        n = len(self.defined)
        return float(self.defined.std(ddof=1) / n**0.5) if n > 1 else float("nan")

    @property
    def valid(self) -> float:
        """The share of images for which the metric is defined."""
        return len(self.defined) / len(self.values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a mean that is not defined is null."""
        numbers = {"mean": self.mean, "standard_error": self.standard_error, "valid": self.valid}
        return {
            "metric": self.metric,
            "attribution": self.attribution,
            "group": self.group,
            "higher_is_better": self.higher_is_better,
            **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
            "n": len(self.values),
            "seconds": self.seconds,
        }
