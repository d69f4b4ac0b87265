"""What there is to certify: a batch of samples, with the bounds that are known of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from xrobust.certification.backward import Walk, interval_lower_bound, lower_bound
from xrobust.certification.bounds import Bounds, interval_bounds
from xrobust.certification.box import Box, input_box
from xrobust.certification.graph import Network
from xrobust.certification.intermediate import CHUNK, crown_bounds, forms_at_once
from xrobust.certification.operation import ADAPTIVE
from xrobust.certification.specification import margins
from xrobust.frame import logits_of, predictions
from xrobust.randomness import Generator, subset
from xrobust.threat import ThreatModel


@dataclass(eq=False)
class Problem:
    """Samples with a network and what has been computed so far; members of a cascade share one.

    Attributes:
        model: as the user gave it, for predictions and attacks.
        network: in the precision of the certifier.
        threat, x, y, generator: the samples and the ball around each.
        chunk: how many numbers a tensor of coefficients may have.
        lower: the best known lower bounds of z_y − z_j for all j ≠ y, (N, K − 1) float64.
        forms: of these differences, (N, K − 1, K).
    """

    model: nn.Module
    network: Network
    threat: ThreatModel
    x: Tensor
    y: Tensor
    generator: Generator
    dtype: torch.dtype
    chunk: int = CHUNK
    lower: Tensor = field(init=False)
    forms: Tensor = field(init=False)
    _interval: Bounds | None = field(default=None, init=False)
    _crown: dict[str, Bounds] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        classes = self.network.shapes[-1].numel()
        self.forms = margins(self.y, classes, self.dtype)
        self.lower = self.forms.new_full(self.forms.shape[:2], -torch.inf, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def box(self) -> Box:
        """The images of the threat model around each sample."""
        return input_box(self.threat, self.x, self.dtype)

    def interval(self) -> Bounds:
        """The bounds of interval arithmetic, with rounding; computed once."""
        if self._interval is None:
            self._interval = interval_bounds(self.network, self.box, rounding=True)
        return self._interval

    def crown(self, slope: str = ADAPTIVE) -> Bounds:
        """The bounds with preactivations by backward passes; computed once."""
        if slope not in self._crown:
            self._crown[slope] = crown_bounds(self.interval(), slope=slope, chunk=self.chunk)
        return self._crown[slope]

    def raise_lower(self, lower: Tensor) -> Tensor:
        """Take note of lower bounds (N, K − 1); returns the margins (N,), NaN where a bound is NaN."""
        self.lower = torch.maximum(self.lower, lower)
        return self.margin

    @property
    def margin(self) -> Tensor:
        """The lower bounds of min_j z_y − z_j, (N,); ∞ with a single class."""
        return self.lower.amin(1) if self.lower.shape[1] else self.lower.new_full((len(self),), torch.inf)

    def bound_by_intervals(self) -> Tensor:
        """`raise_lower` by interval arithmetic."""
        return self.raise_lower(interval_lower_bound(self.interval(), self.forms))

    def bound_by_lines(self, bounds: Bounds, slope: str = ADAPTIVE) -> Tensor:
        """`raise_lower` by a backward pass from the logits."""
        parts = self.forms.split(forms_at_once(bounds, self.chunk), dim=1)
        return self.raise_lower(torch.cat([lower_bound(bounds, part, walk=Walk(slope)) for part in parts], 1))

    def predictions(self, images: Tensor) -> Tensor:
        """The classes that the user's model gives to images."""
        with torch.no_grad():
            return predictions(logits_of(self.model, images))

    def rows(self, index: Tensor) -> Problem:
        """The problem for some samples, with all that is known of them."""
        part = Problem(
            self.model,
            self.network,
            self.threat,
            self.x[index],
            self.y[index],
            subset(self.generator, index),
            self.dtype,
            self.chunk,
        )
        part.lower = self.lower[index]
        part._interval = None if self._interval is None else self._interval.rows(index)
        part._crown = {slope: bounds.rows(index) for slope, bounds in self._crown.items()}
        return part
